// Refreshes each element with `data-live` from that URL every 3 seconds. Not while the tab is hidden, and not while the
// focus is inside: the focused element must not disappear.
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
    // The server is unreachable: the next refresh tries again.
  }
}

async function keepLive(part) {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
    await refresh(part);
  }
}

document.querySelectorAll("[data-live]").forEach(keepLive);
