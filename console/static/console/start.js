/* The form that starts a rollout: shows the fields that are used, and refreshes the plan after each change. Without this
   script a button shows the plan. */
"use strict";

(() => {
  const form = document.getElementById("start");
  const plan = document.getElementById("plan");
  if (!form) return;
  /* How long to wait after the last input before the plan is requested, ms. */
  const PAUSE = 400;
  let timer = null, request = null;
  document.documentElement.classList.add("has-js");

  function showScope() {
    const chosen = form.elements.scope.value;
    for (const each of form.querySelectorAll("[data-scope]")) each.hidden = each.dataset.scope !== chosen;
  }

  function stale() {
    plan.classList.add("is-stale");
    for (const each of plan.querySelectorAll("button")) each.disabled = true;
    clearTimeout(timer);
    timer = setTimeout(preview, PAUSE);
  }

  async function preview() {
    request?.abort();
    request = new AbortController();
    const body = new FormData(form);
    for (const name of ["plan_hash", "start"]) body.delete(name);
    try {
      const answer = await fetch(form.getAttribute("action"), { method: "POST", body, signal: request.signal });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = fresh.getElementById("plan");
      if (answer.redirected || answer.status === 403) { location.reload(); return; }  /* the session has ended, or another user is logged in */
      if (!next) throw new Error(answer.statusText);
      plan.replaceChildren(...next.childNodes);
      for (const each of form.querySelectorAll("[data-error]")) {
        const words = fresh.querySelector(`[data-error="${each.dataset.error}"]`)?.textContent ?? "";
        each.textContent = words;
        const input = form.querySelector(`[name="${each.dataset.error}"]:not([type=checkbox])`);
        if (words) input?.setAttribute("aria-invalid", "true");
        else input?.removeAttribute("aria-invalid");
        if (words) each.closest("details")?.setAttribute("open", "");
      }
      plan.classList.remove("is-stale");
    } catch (error) {
      if (error.name === "AbortError") return;
      plan.classList.remove("is-stale");
      const line = document.createElement("p");
      line.className = "ro-note bad";
      line.textContent = "Cannot reach the control plane. Change any field to try again.";
      plan.replaceChildren(plan.querySelector("h2"), line);
    }
  }

  form.addEventListener("input", (event) => { if (event.target.name === "scope") showScope(); stale(); });
  showScope();
})();
