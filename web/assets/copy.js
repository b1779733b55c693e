// Copies a text of the page and says so; prints; folds a QR code on a phone.

for (const button of document.querySelectorAll('[data-copy]')) {
  const words = button.textContent;
  button.setAttribute('aria-live', 'polite');
  button.addEventListener('click', async () => {
    const from = document.getElementById(button.dataset.copy);
    const lines = from.querySelectorAll('code');
    const text = lines.length ? [...lines].map((line) => line.textContent).join('\n') : from.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.strip ? text.replaceAll(button.dataset.strip, '') : text);
      button.textContent = 'Copied';
      setTimeout(() => { button.textContent = words; }, 3000);
    } catch {
      getSelection().selectAllChildren(from);
    }
  });
}

// The code is for another device's camera: on a phone the app is a press away.
if (matchMedia('(pointer: coarse)').matches) document.querySelector('.qr-fold')?.removeAttribute('open');

document.querySelector('[data-print]')?.addEventListener('click', () => print());
