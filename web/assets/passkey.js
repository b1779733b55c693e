// One ceremony on a page: it starts from a press, may be stopped, and each way in which it ends has a block of the page.

import { creation, json, request } from './webauthn.js';

const root = document.querySelector('[data-ceremony]');
const { ceremony: kind, base, guard, host } = root.dataset;
const KEEP = 240_000;
let running = null;
let began = 0;
let cancelled = 0;
let kept = null;
let last = 'any';
const checking = root.querySelector('.waiting [data-when=saving] span:last-child');
const atFirst = checking?.textContent;

const heading = document.title.replace(/^Error: /, '');

function show(state) {
  root.dataset.state = state;
  document.title = ['ready', 'waiting', 'saving', 'already'].includes(state) ? heading : `Error: ${heading}`;
  for (const block of root.querySelectorAll('[data-when]')) block.hidden = !block.dataset.when.split(' ').includes(state);
  // The button that was pressed may be gone: what is next has the focus.
  if (state !== 'saving') root.querySelector('.needs-script > :is(a, button):not([hidden])')?.focus();
}

async function call(path, body, signal) {
  // The server answers within thirty seconds or not at all.
  const patience = AbortSignal.timeout?.(35_000);
  const slow = setTimeout(() => checking?.replaceChildren('Still checking…'), 4000);
  const answer = await fetch(`${base}/${path}`, {
    method: 'POST',
    signal: signal && patience && AbortSignal.any ? AbortSignal.any([signal, patience]) : signal ?? patience,
    headers: { 'content-type': 'application/json', 'form-guard': guard },
    body: JSON.stringify(body),
  }).catch((error) => { throw error.name === 'TimeoutError' ? new TypeError('no answer') : error; })
    .finally(() => clearTimeout(slow));
  const content = await answer.json().catch(() => null);
  signal?.throwIfAborted();
  // A good answer that was cut off is as good as none.
  if (answer.ok && !content) throw new TypeError('cut off');
  if (!answer.ok) throw Object.assign(new Error(content?.code), { code: content?.code ?? 'fault', answered: true, refused: answer.status < 500 });
  return content;
}

// Fresh options for each request; creation options are used again after a cancelled dialog, while they count.
async function options(choice, signal) {
  if (kind === 'get') return call('options', {}, signal);
  if (kept?.choice === choice && Date.now() - kept.at < KEEP) return kept.content;
  const content = await call('options', { authenticator: choice }, signal);
  kept = { choice, content, at: Date.now() };
  return content;
}

async function start(choice) {
  last = choice;
  running?.abort();
  running = new AbortController();
  began = performance.now();
  checking?.replaceChildren(atFirst);
  const { signal } = running;
  let credential;
  try {
    show('waiting');
    const content = await options(choice, signal);
    if (kind === 'get') {
      const publicKey = request(content.options);
      if (choice === 'hybrid') publicKey.hints = ['hybrid'];
      credential = await navigator.credentials.get({ publicKey, signal });
    } else {
      credential = await navigator.credentials.create({ publicKey: creation(content.options), signal });
    }
    kept = null;
    show('saving');
    const { next } = await call('credential', { ...content.extra, credential: json(credential) });
    location.assign(next);
  } catch (error) {
    show(error.answered || error instanceof TypeError ? ended(error, credential) : failed(error));
  }
}

// The browser ended it. It hides the reason behind one name on purpose.
function failed(error) {
  switch (error.name) {
    case 'NotAllowedError': case 'AbortError': cancelled += 1; return cancelled > 1 && kind === 'get' ? 'again' : 'cancelled';
    // Another dialog is open: nothing ended, and nothing is counted.
    case 'OperationError': return 'ready';
    case 'InvalidStateError': return kind === 'create' ? 'already' : 'fault';
    case 'ConstraintError': return 'lock';
    case 'NotSupportedError': return 'unsupported';
    case 'SecurityError': return 'insecure';
    default: return 'fault';
  }
}

// The server refused, or could not be reached.
function ended(error, credential) {
  const made = kind === 'create' && credential;
  // The answer was lost, or tells only that it came too late: the page knows whether the passkey was saved.
  const late = error.code === 'factor_not_pending';
  if (made && (!error.refused || late)) {
    whether(credential, late);
    return 'saving';
  }
  if (credential && kind === 'get' && !error.refused) {
    whetherPassed(error.answered);
    return 'saving';
  }
  // What the server has already stays.
  const dropped = made && error.code !== 'factor_duplicate';
  if (credential && (dropped || error.code === 'credential_unknown')) forget(credential);
  if (!error.answered) return navigator.onLine ? 'fault' : 'offline';
  switch (error.code) {
    case 'credential_unknown': return 'unknown';
    case 'user_verification_required': return 'lock';
    case 'factor_duplicate': return 'already';
    case 'request_invalid': return kind === 'create' ? 'limit' : 'fault';
    case 'credential_invalid': case 'method_not_allowed': return made ? 'unsaved' : 'refused';
    case 'challenge_not_pending': case 'challenge_expired': case 'enrolment_expired': case 'step_up_required':
    case 'not_found': case 'client_token_invalid': location.reload(); return 'saving';
    default: return made ? 'unsaved' : 'fault';
  }
}

// The answer was lost: the next page knows whether the passkey was saved.
async function whether(credential, held) {
  const added = base.replace(/[^/]+$/, 'added');
  const page = await fetch(added).catch(() => null);
  if (page?.ok && page.url.endsWith('/added')) return location.assign(added);
  if (page?.ok && held) return show('already');
  if (page?.ok) forget(credential);
  return show(page?.ok ? 'unsaved' : unknown());
}

// The same of a proof: the page that follows it is there, or the challenge waits still.
async function whetherPassed(answered) {
  const page = await fetch(`${base}/done`).catch(() => null);
  if (page?.ok && page.url.endsWith('/done')) return location.assign(page.url);
  // What was not answered may be judged yet.
  return show(page?.ok && answered ? 'fault' : unknown());
}

// Nobody here can know how it ended, so nothing is claimed.
function unknown() {
  return navigator.onLine ? 'lost' : 'offline';
}

// No orphans: the password manager is asked to drop what we do not hold.
function forget(credential) {
  PublicKeyCredential.signalUnknownCredential?.({ rpId: host, credentialId: credential.id }).catch(() => {});
}

// What the browser cannot ask is not claimed.
const asks = Boolean(window.PublicKeyCredential?.signalUnknownCredential);
for (const words of root.querySelectorAll('[data-asks]')) words.hidden = (words.dataset.asks === 'yes') !== asks;

for (const button of root.querySelectorAll('[data-start]')) {
  // "Try again" asks for what was asked for last.
  button.addEventListener('click', () => start('again' in button.dataset ? last : button.dataset.start || 'any'));
}
const stop = root.querySelector('[data-stop]');
// It stands where the button stood that began the ceremony: the second press of two stops nothing.
stop?.addEventListener('click', () => { if (performance.now() - began > 700) running?.abort(); });
// The key that began the ceremony may still be held down.
stop?.addEventListener('keydown', (event) => { if (event.repeat) event.preventDefault(); });
for (const link of root.querySelectorAll('[data-choose]')) {
  link.addEventListener('click', (event) => {
    const chooser = document.getElementById('chooser');
    if (!chooser) return;
    event.preventDefault();
    chooser.open = true;
    chooser.querySelector('summary').focus();
  });
}
if (!window.PublicKeyCredential) {
  show('unsupported');
  const chooser = document.getElementById('chooser');
  if (chooser) chooser.open = true;
}
