// Keeps the panes up to date: texts arrive while the person looks at another page. Without it, a reload does the same.

const panes = document.querySelector("[data-panes]");
const EVERY = 3000;

async function refresh() {
  if (document.hidden) return;
  let answer;
  try {
    answer = await fetch("/demo/panes", { credentials: "same-origin", cache: "no-store" });
  } catch {
    return;
  }
  if (answer.status !== 200) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").body;
  for (const pane of fresh.querySelectorAll("[data-pane]")) {
    const shown = panes.querySelector(`[data-pane="${pane.dataset.pane}"]`);
    if (!shown) continue;
    // What the person has opened stays open, and nothing moves under them without need.
    for (const open of shown.querySelectorAll("details[open]")) {
      pane.querySelector(`details[data-call="${open.dataset.call}"]`)?.setAttribute("open", "");
    }
    if (shown.innerHTML !== pane.innerHTML && !shown.contains(document.activeElement)) shown.replaceWith(pane);
  }
}

setInterval(refresh, EVERY);
document.addEventListener("visibilitychange", refresh);
addEventListener("pageshow", (event) => {
  // From the back-forward cache: who was signed in then may be out by now.
  if (event.persisted) location.reload();
});
