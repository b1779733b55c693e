// Options and credentials as JSON: the browser's own functions, or these where they are missing or an extension's fail.

const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)))
  .replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
const described = (list = []) => list.map((one) => ({ ...one, id: bytes(one.id) }));

export function creation(options) {
  try { return PublicKeyCredential.parseCreationOptionsFromJSON(options); } catch { /* by hand */ }
  return {
    ...options,
    challenge: bytes(options.challenge),
    user: { ...options.user, id: bytes(options.user.id) },
    excludeCredentials: described(options.excludeCredentials),
  };
}

export function request(options) {
  try { return PublicKeyCredential.parseRequestOptionsFromJSON(options); } catch { /* by hand */ }
  return { ...options, challenge: bytes(options.challenge), allowCredentials: described(options.allowCredentials) };
}

export function json(credential) {
  try { return credential.toJSON(); } catch { /* by hand */ }
  const { response } = credential;
  const members = ['clientDataJSON', 'attestationObject', 'authenticatorData', 'signature', 'userHandle'];
  const out = {};
  for (const name of members) if (response[name]) out[name] = text(response[name]);
  if (response.getTransports) out.transports = response.getTransports();
  return {
    id: credential.id,
    rawId: text(credential.rawId),
    type: credential.type,
    authenticatorAttachment: credential.authenticatorAttachment ?? undefined,
    clientExtensionResults: credential.getClientExtensionResults(),
    response: out,
  };
}
