// Counts down to the next text. The button stays where it is and says why it waits; nothing is read aloud each second.

const button = document.querySelector('[data-resend]');
if (button) {
  // Counted from when the page was drawn: the device's clock may be wrong.
  const [drawn, wall] = [performance.now(), Date.now()];
  // One of the two stands still while a device sleeps, the other may be set.
  const gone = () => Math.max(performance.now() - drawn, Date.now() - wall) / 1000;
  const words = button.textContent;
  const note = button.nextElementSibling;
  note.className = 'out-of-sight';
  const count = document.createElement('span');
  count.setAttribute('aria-hidden', 'true');
  // One text, which wraps as one.
  const label = document.createElement('span');
  label.append(words, ' ', count);
  button.replaceChildren(label);
  button.setAttribute('aria-disabled', 'true');
  button.addEventListener('click', (event) => { if (button.ariaDisabled === 'true') event.preventDefault(); });
  const tick = () => {
    const left = Math.ceil(button.dataset.resend - gone());
    if (left > 0) {
      count.textContent = `(in\u00a0${left}\u00a0s)`;
      setTimeout(tick, 500);
      return;
    }
    button.textContent = words;
    button.removeAttribute('aria-disabled');
    note?.remove();
  };
  tick();
}
