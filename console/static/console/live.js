// Keeps what has `data-live` up to date: it is what that address answers. Not while the tab is hidden, and not while
// the keyboard is inside: what has the focus must not vanish.
"use strict";

const SECONDS = 3;
const lastText = new WeakMap();

async function refresh(part) {
  if (document.hidden || part.contains(document.activeElement)) return;
  try {
    const response = await fetch(part.dataset.live, { headers: { Accept: "text/html" }, redirect: "manual" });
    if (response.type === "opaqueredirect" || response.status === 403) { location.reload(); return; }  // the session has ended
    if (!response.ok) return;
    const text = await response.text();
    if (text !== lastText.get(part) && !part.contains(document.activeElement)) part.innerHTML = text;
    lastText.set(part, text);
  } catch {
    // The server is away for a moment: the next look will tell.
  }
}

async function keepLive(part) {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
    await refresh(part);
  }
}

document.querySelectorAll("[data-live]").forEach(keepLive);
