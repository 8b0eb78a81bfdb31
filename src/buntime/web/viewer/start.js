// Shows the API reference in place of the plain list of operations. Runs before the viewer's own script.

const settings = {
  url: "/openapi.json",
  hiddenClients: true, // the samples in the document are ours
  hideClientButton: true,
  hideModels: true, // each operation shows the shapes that it needs
  defaultOpenAllTags: true,
  showDeveloperTools: "never",
  documentDownloadType: "none",
  orderSchemaPropertiesBy: "preserve",
  theme: "none", // docs.css has one
  localization: { translations: { apiClient: { authSelector: { selectedType: "{type}" } } } }, // fits a phone
  // Everything stays on this server: the maker's fonts, statistics and assistants are off.
  withDefaultFonts: false,
  telemetry: false,
  agent: { disabled: true },
  mcp: { disabled: true },
};

// The page's policy lets in stylesheets with its nonce alone, and parts of the viewer do not know of nonces.
const { content: nonce } = document.querySelector("meta[property=csp-nonce]");
const createElement = document.createElement;
document.createElement = function (...given) {
  const made = createElement.apply(this, given);
  if (made instanceof HTMLStyleElement) made.nonce = nonce;
  return made;
};

// What keyboards and screen readers need, and the viewer leaves out.
function improve(place) {
  for (const button of place.querySelectorAll(".scalar-code-copy")) {
    button.ariaLabel ||= button.textContent.trim() || "Copy"; // its text is hidden from screen readers too
  }
  for (const part of place.querySelectorAll("ul.endpoints, .response-card-footer")) {
    part.tabIndex = 0; // it scrolls where it has no room
  }
}

addEventListener("DOMContentLoaded", () => {
  const plain = [document.querySelector("main"), document.getElementById("look")];
  const place = document.createElement("div");
  document.body.prepend(place);
  new MutationObserver(() => improve(place)).observe(place, { childList: true, subtree: true });
  Scalar.createApiReference(place, settings);
  for (const element of plain) element.remove();
});
