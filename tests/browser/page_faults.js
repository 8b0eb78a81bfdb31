// What is wrong with the part of the page that is on the screen, as sentences.
() => {
  const faults = [];
  const root = document.scrollingElement;
  if (root.scrollWidth > innerWidth) faults.push(`the page is ${root.scrollWidth} px wide in a window of ${innerWidth}`);

  // The part of the screen in which an element can be seen: boxes that scroll or clip cut it.
  const windowOf = (element) => {
    const seen = { left: 0, top: 0, right: innerWidth, bottom: innerHeight, scrolls: false };
    for (let box = element.parentElement; box && box !== root; box = box.parentElement) {
      const style = getComputedStyle(box);
      if (style.overflowX === "visible" && style.overflowY === "visible") continue;
      const rect = box.getBoundingClientRect();
      seen.left = Math.max(seen.left, rect.left);
      seen.right = Math.min(seen.right, rect.right);
      seen.top = Math.max(seen.top, rect.top);
      seen.bottom = Math.min(seen.bottom, rect.bottom);
      if (/auto|scroll/.test(style.overflowX)) seen.scrolls = true;
    }
    return seen;
  };
  const isShown = (element) => {
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) return false;
    for (let box = element; box; box = box.parentElement) {
      const { clipPath, clip, width, height, position } = getComputedStyle(box);
      if (clipPath === "inset(50%)" || (position === "absolute" && clip !== "auto")) return false;
      if (position === "absolute" && parseFloat(width) <= 1 && parseFloat(height) <= 1) return false;
    }
    return true;
  };
  const name = (element, text) => `${element.tagName.toLowerCase()} "${text.trim().slice(0, 40)}"`;

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const element = node.parentElement;
    if (!node.data.trim() || !isShown(element)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const seen = windowOf(element);
    const ellipsis = getComputedStyle(element).textOverflow === "ellipsis";
    for (const rect of range.getClientRects()) {
      const [x, y] = [rect.left + rect.width / 2, rect.top + rect.height / 2];
      if (rect.width < 2 || rect.height < 2 || y < seen.top || y > seen.bottom) continue;
      const out = rect.right > seen.right + 1.5 || rect.left < seen.left - 1.5;
      if (out && !seen.scrolls && !ellipsis) faults.push(`${name(element, node.data)} is cut off`);
      if (x < seen.left || x > seen.right) continue;
      const hit = document.elementFromPoint(x, y);
      if (hit && !element.contains(hit) && !hit.contains(element)) {
        // what stays in its place while the page scrolls below it may cover text
        let fixed = false;
        for (let box = hit; box; box = box.parentElement) fixed ||= /fixed|sticky/.test(getComputedStyle(box).position);
        if (!fixed) faults.push(`${name(element, node.data)} is covered by ${name(hit, hit.textContent)}`);
      }
    }
  }
  return [...new Set(faults)].slice(0, 20);
}
