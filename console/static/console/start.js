/* The form of a rollout: shows the fields that count, and the plan anew after each change. Without it a button does. */
"use strict";

(() => {
  const form = document.getElementById("start");
  const plan = document.getElementById("plan");
  if (!form) return;
  /* How long nothing is typed before the plan is asked for, ms. */
  const PAUSE = 400;
  let timer = null, asking = null;
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
    asking?.abort();
    asking = new AbortController();
    const body = new FormData(form);
    for (const name of ["plan_hash", "start"]) body.delete(name);
    try {
      const answer = await fetch(form.getAttribute("action"), { method: "POST", body, signal: asking.signal });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = fresh.getElementById("plan");
      if (answer.redirected || answer.status === 403) { location.reload(); return; }  /* the session has ended, or is another */
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
      line.textContent = "The control plane does not answer. Change anything to try again.";
      plan.replaceChildren(plan.querySelector("h2"), line);
    }
  }

  form.addEventListener("input", (event) => { if (event.target.name === "scope") showScope(); stale(); });
  showScope();
})();
