// Every page: times in the browser's own zone, forms that are slow, sent twice or offline, and a fresh look after "back" and reload.

document.documentElement.classList.add('js');

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' });
const dayAndClock = new Intl.DateTimeFormat('en-GB', { dateStyle: 'long', timeStyle: 'short' });
for (const time of document.querySelectorAll('time[datetime]')) {
  const at = new Date(time.dateTime);
  if (!Number.isNaN(at.getTime()) && time.textContent.endsWith('UTC')) {
    time.textContent = (time.hasAttribute('data-day') ? dayAndClock : clock).format(at);
  }
}

// What is shown from the back-forward cache may be over by now.
addEventListener('pageshow', (event) => { if (event.persisted) location.reload(); });

const refused = document.querySelector('[aria-invalid=true]');
if (refused) { refused.focus(); refused.select?.(); }

const offline = document.querySelector('.offline');
const [alone, kept, again] = offline.querySelectorAll('span, button');
// The form that was sent while offline, and whether it goes out whatever the browser says.
let held = null;
let reached = false;
addEventListener('offline', () => { offline.hidden = false; });
addEventListener('online', retry);
again.addEventListener('click', retry);

function hold(form, button) {
  held = { form, button };
  alone.hidden = true;
  kept.hidden = again.hidden = offline.hidden = false;
}

// A form that goes nowhere takes the page with it: first something small is asked for.
async function retry() {
  if (!held) { offline.hidden = true; return; }
  const icon = document.querySelector('link[rel=icon]').href;
  if (!await fetch(icon, { method: 'HEAD', cache: 'no-store' }).catch(() => null) || !held) return;
  const { form, button } = held;
  held = null;
  offline.hidden = reached = true;
  form.requestSubmit(button);
  reached = false;
}

// A reload asks for the page again and does not send its form again, and "back" finds it.
history.replaceState(null, '', location.href);

for (const form of document.forms) {
  // A download leaves the page where it is.
  if (form.hasAttribute('data-stays')) continue;
  // There before its words are: many readers miss what comes together with its region.
  const status = document.createElement('p');
  status.setAttribute('role', 'status');
  status.className = 'said';
  form.append(status);
  let sent = false;
  form.addEventListener('submit', (event) => {
    if (event.defaultPrevented) return;
    if (sent) { event.preventDefault(); return; }
    if (!navigator.onLine && !reached) { event.preventDefault(); hold(form, event.submitter); return; }
    sent = true;
    const button = event.submitter;
    button?.setAttribute('aria-busy', 'true');
    setTimeout(() => say(status, 'Still checking…', true), 4000);
    // A load that was stopped leaves the page where it is.
    setTimeout(() => {
      sent = false;
      button?.removeAttribute('aria-busy');
      say(status, 'This takes longer than usual. You can try again.', false);
    }, 12000);
  });
}

function say(status, words, turns) {
  status.textContent = words;
  if (!turns) return;
  const spinner = document.createElement('span');
  spinner.className = 'spinner';
  spinner.setAttribute('aria-hidden', 'true');
  status.prepend(spinner);
}

// The end of the page's time is said at 5 minutes, 1 minute and 30 seconds, and never counted aloud.
const ends = document.querySelector('[data-ends]');
if (ends) {
  const at = (seconds, words) => {
    const wait = (ends.dataset.ends - seconds) * 1000;
    if (wait > 0 && wait < 2 ** 31) setTimeout(() => { ends.textContent = words; }, wait);
  };
  at(300, 'This page closes in 5 minutes.');
  at(60, 'This page closes in 1 minute.');
  at(30, 'This page closes in 30 seconds.');
  at(0, 'This request timed out. Start again.');
  setTimeout(() => ends.setAttribute('role', 'alert'), Math.max(0, Math.min(ends.dataset.ends * 1000 - 500, 2 ** 31 - 1)));
}
