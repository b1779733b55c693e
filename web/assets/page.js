// Every page: times in the browser's own zone, forms that are slow, sent twice or offline, and a fresh look after "back" and reload.

document.documentElement.classList.add('js');

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
for (const time of document.querySelectorAll('time[datetime]')) {
  const at = new Date(time.dateTime);
  if (!Number.isNaN(at.getTime()) && time.textContent.endsWith('UTC')) time.textContent = clock.format(at);
}

// What is shown from the back-forward cache may be over by now.
addEventListener('pageshow', (event) => { if (event.persisted) location.reload(); });

const refused = document.querySelector('[aria-invalid=true]');
if (refused) { refused.focus(); refused.select?.(); }

const offline = document.querySelector('.offline');
addEventListener('online', () => { offline.hidden = true; });
addEventListener('offline', () => { offline.hidden = false; });

// A reload asks for the page again and does not send its form again, and "back" finds it.
history.replaceState(null, '', location.href);

for (const form of document.forms) {
  // A download leaves the page where it is.
  if (form.hasAttribute('data-stays')) continue;
  let sent = false;
  form.addEventListener('submit', (event) => {
    if (event.defaultPrevented) return;
    if (sent) { event.preventDefault(); return; }
    if (!navigator.onLine) { event.preventDefault(); offline.hidden = false; return; }
    sent = true;
    const button = event.submitter;
    button?.setAttribute('aria-busy', 'true');
    const slow = setTimeout(() => say(form, 'Still checking…'), 4000);
    // A load that was stopped leaves the page where it is.
    setTimeout(() => { sent = false; button?.removeAttribute('aria-busy'); clearTimeout(slow); }, 12000);
  });
}

function say(form, words) {
  const status = document.createElement('p');
  status.setAttribute('role', 'status');
  status.className = 'fine';
  form.append(status);
  status.textContent = words;
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
