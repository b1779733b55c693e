// Tells the browser which passkeys we still hold, so that its list shows no others.

const { accepted, user, host } = document.querySelector('[data-accepted]').dataset;
window.PublicKeyCredential?.signalAllAcceptedCredentials?.({
  rpId: host,
  userId: user,
  allAcceptedCredentialIds: accepted.split(' ').filter(Boolean),
}).catch(() => {});
