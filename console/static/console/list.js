// Adds a checkbox that selects every row of the list.
"use strict";

const boxes = document.querySelectorAll("input.action-select");
const header = document.querySelector("#result_list thead th");
if (boxes.length && header) {
  const all = document.createElement("input");
  all.type = "checkbox";
  all.setAttribute("aria-label", "Select all on this page");
  all.addEventListener("change", () => boxes.forEach((box) => { box.checked = all.checked; }));
  header.replaceChildren(all);
}
