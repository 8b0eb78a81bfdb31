// Puts a button beside each command that copies it. Its styles are in `look.py`.

const status = document.createElement("p"); // what screen readers say
status.role = "status";
status.className = "unseen";
document.querySelector("main").append(status);

// Returns whether it is in the clipboard. If not, it is selected.
async function copy(command) {
  try {
    await navigator.clipboard.writeText(command.textContent);
    return true;
  } catch {
    // Without HTTPS, browsers have no navigator.clipboard, except on localhost.
    getSelection().selectAllChildren(command);
    return document.execCommand("copy");
  }
}

for (const section of document.querySelectorAll(".command")) {
  const title = section.querySelector("h2");
  const button = document.createElement("button");
  let timer = 0;
  const show = (word) => {
    button.textContent = word;
    button.ariaLabel = `${word}: ${title.textContent}`;
  };
  button.addEventListener("click", async () => {
    const word = (await copy(section.querySelector("pre code"))) ? "Copied" : "Selected";
    show(word);
    status.textContent = `${word}: ${title.textContent}`;
    clearTimeout(timer);
    timer = setTimeout(() => {
      show("Copy");
      status.textContent = "";
    }, 3000);
  });
  show("Copy");
  title.after(button);
}
