// Uploads packages one after the other, also by drag and drop. Each shows its progress or its error.
"use strict";

const form = document.getElementById("upload");
const input = form.elements.module;
const list = document.getElementById("uploads");
let queue = Promise.resolve();

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function add(file) {
  const bar = element("progress", { max: 1, value: 0 });
  bar.setAttribute("aria-label", `Progress of ${file.name}`);
  const state = element("span", { className: "badge is-quiet", textContent: "waiting" });
  const item = element("li", { className: "upload" }, element("span", {}, element("strong", { textContent: file.name }), ` ${size(file.size)}`), state, bar);
  list.prepend(item);
  queue = queue.then(() => send(file, item, bar, state));
}

function send(file, item, bar, state) {
  return new Promise((resolve) => {
    const show = (meaning, word) => Object.assign(state, { className: `badge is-${meaning}`, textContent: word });
    const tell = (meaning, ...words) => {
      bar.remove();
      const said = element("p", { className: meaning === "bad" ? "error" : "" }, ...words);
      said.setAttribute("role", meaning === "bad" ? "alert" : "status");
      item.append(said);
    };
    const request = new XMLHttpRequest();
    const body = new FormData();
    body.append("module", file);
    request.open("POST", location.pathname);
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("X-CSRFToken", form.elements.csrfmiddlewaretoken.value);
    request.responseType = "json";
    request.upload.onprogress = (event) => { if (event.lengthComputable) bar.value = event.loaded / event.total; };
    request.upload.onload = () => { bar.removeAttribute("value"); show("busy", "checking"); };
    request.onloadend = () => {
      const answer = request.response;
      if (answer?.start) {
        show("good", "uploaded");
        tell("good", answer.said);
        item.append(element("p", { className: "actions" },
          element("a", { className: "action", href: answer.start, textContent: "Roll out" }),
          element("a", { className: "action quiet", href: answer.module, textContent: "Open the module" })));
      } else if (answer?.error_code) {
        show("bad", "refused");
        tell("bad", element("code", { textContent: answer.error_code }), ` ${answer.description}`);
      } else {
        show("bad", "failed");
        const isExpired = request.status === 403 || request.responseURL.includes("/login/");
        if (isExpired) tell("bad", "Your session has ended, or this page is out of date: ", element("a", { href: location.pathname, textContent: "open it again" }), ".");
        else tell("bad", request.status ? `The server answered ${request.status}. Try again.` : "The connection was lost. Try again.");
      }
      resolve();
    };
    show("busy", "uploading");
    request.send(body);
  });
}

function addAll(files) {
  document.getElementById("error")?.remove();
  for (const file of files) add(file);
}

input.multiple = true;
input.hasChangeListener = true;  // otherwise unfold looks for a text field next to it, and there is none
form.addEventListener("submit", (event) => {
  event.preventDefault();
  addAll(input.files);
  input.value = "";
});
for (const name of ["dragenter", "dragover"]) form.addEventListener(name, (event) => { event.preventDefault(); form.classList.add("over"); });
for (const name of ["dragleave", "drop"]) form.addEventListener(name, (event) => { event.preventDefault(); form.classList.remove("over"); });
form.addEventListener("drop", (event) => addAll(event.dataTransfer.files));
