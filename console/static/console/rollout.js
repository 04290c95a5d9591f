/* The live page of a rollout. An event from the rollout's stream triggers a refresh from the page's own URL. Without
   this script the page does not refresh, and its buttons lead to confirmation pages. */
"use strict";

(() => {
  const live = document.getElementById("live");
  if (!live) return;

  /* Shortest and longest time between two refreshes, and the wait before the next connection attempt, ms. */
  const PAUSE = 300, LONGEST = 15000, RETRY = 2000;
  let etag = "", waiting = null, refreshing = false, again = false, last = live.dataset.after, stream = null, retry = null;
  let hasEnded = live.dataset.ended === "yes";
  const SHOWN = [
    "rollout.started.v1", "rollout.approved.v1", "rollout.rejected.v1", "rollout.wave_started.v1",
    "rollout.wave_soaking.v1", "rollout.wave_gated.v1", "rollout.wave_passed.v1", "rollout.wave_failed.v1",
    "rollout.released.v1", "rollout.paused.v1", "rollout.resumed.v1", "rollout.abort_requested.v1",
    "rollout.rollback_requested.v1", "rollout.rollback_started.v1", "rollout.nodes_retried.v1", "rollout.finished.v1",
    "operation.scheduled.v1", "operation.released.v1", "operation.cancel_requested.v1", "operation.given_back.v1",
    "operation.progressed.v1", "operation.finished.v1", "operation.reported_late.v1", "report.rejected.v1",
  ];

  function showConnection(text, style) {
    const line = document.getElementById("ro-link");
    if (line.textContent === text) return;
    line.textContent = text;
    line.className = `ro-link ${style}`;
  }

  /* --- Content ---------------------------------------------------------------------------------------------------- */

  function show(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const part of live.querySelectorAll("[data-part]")) {
      const next = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
      if (!next || next.outerHTML === part.dataset.html) continue;
      const known = new Set([...part.querySelectorAll("li[value]")].map((each) => each.value));
      const open = [...part.querySelectorAll("details")].map((each) => each.open);
      const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      part.dataset.html = next.outerHTML;
      part.className = next.className;
      part.replaceChildren(...next.childNodes);
      part.querySelectorAll("details").forEach((each, index) => { each.open = open[index] || false; });
      for (const each of part.querySelectorAll("li[value]")) each.classList.toggle("new", !known.has(each.value));
      if (focused) part.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    }
    hasEnded = Boolean(live.querySelector(".ro-report"));
    prepare();
  }

  async function refresh() {
    waiting = null;
    if (refreshing) { again = true; return; }
    refreshing = true;
    try {
      const answer = await fetch(live.dataset.live, { headers: etag ? { "If-None-Match": etag } : {}, cache: "no-store" });
      if (answer.redirected || answer.status === 403) { location.reload(); return; }  /* the session has ended */
      if (answer.ok) { etag = answer.headers.get("ETag") || ""; show(await answer.text()); }
    } catch {
      /* the stream's error handler shows that the server is unreachable */
    } finally {
      refreshing = false;
      if (again) { again = false; soon(); }
    }
  }

  function soon() { waiting ??= setTimeout(refresh, PAUSE); }

  /* --- The stream ------------------------------------------------------------------------------------------------- */

  function connect() {
    clearTimeout(retry);
    stream?.close();
    stream = new EventSource(`${live.dataset.events}?after=${last}`);
    stream.onopen = () => { showConnection("Live", ""); soon(); };
    stream.onerror = () => {
      if (hasEnded) { stop(); showConnection("Ended", "is-over"); return; }
      showConnection("Disconnected. Reconnecting…", "is-lost");
      soon();
      if (stream.readyState === EventSource.CLOSED) retry = setTimeout(connect, RETRY);
    };
    stream.addEventListener("log.restored", () => location.reload());
    for (const type of SHOWN) stream.addEventListener(type, (event) => { last = event.lastEventId; soon(); });
  }

  function stop() {
    clearTimeout(retry);
    stream?.close();
    stream = null;
  }

  /* A browser allows only a few streams to one host: a hidden page does not keep one. */
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop();
    else if (!hasEnded) connect();
  });
  setInterval(() => { if (!hasEnded && !document.hidden) soon(); }, LONGEST);

  /* --- Buttons ---------------------------------------------------------------------------------------------------- */

  function prepare() {
    for (const each of live.querySelectorAll("[data-confirm]")) each.setAttribute("role", "button");
  }

  async function ask(button) {
    let form = null;
    try {
      const answer = await fetch(button.href);
      form = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector(".ro-confirm");
    } catch { /* the confirmation page shows what is wrong */ }
    if (!form) { location.assign(button.href); return; }
    const dialog = document.createElement("dialog");
    dialog.className = "ro-dialog";
    dialog.setAttribute("aria-labelledby", "ro-ask");
    dialog.append(form);
    dialog.querySelector("[data-cancel]").addEventListener("click", (event) => { event.preventDefault(); dialog.close(); });
    form.addEventListener("submit", () => form.querySelectorAll("button").forEach((each) => { each.ariaDisabled = "true"; }));
    dialog.addEventListener("close", () => {
      dialog.remove();
      live.querySelector(`[href="${CSS.escape(button.getAttribute("href"))}"]`)?.focus();
    });
    live.append(dialog);
    dialog.showModal();
  }

  live.addEventListener("click", (event) => {
    const button = event.target.closest("[data-confirm]");
    if (!button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    ask(button);
  });
  live.addEventListener("keydown", (event) => {
    if (event.key === " " && event.target.matches("[data-confirm]")) { event.preventDefault(); ask(event.target); }
  });

  prepare();
  if (hasEnded) showConnection("Ended", "is-over");
  else connect();
})();
