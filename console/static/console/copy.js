// Copies a text. Without HTTPS a browser offers no clipboard: then the button selects the text.
"use strict";

for (const button of document.querySelectorAll("[data-copies]")) {
  const source = document.getElementById(button.dataset.copies);
  button.hidden = false;
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(source);
    if (!navigator.clipboard) {
      button.textContent = "Selected: press Ctrl+C";
      return;
    }
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  });
}
