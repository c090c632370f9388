"use strict";
// Shows the value under the pointer or the finger, steps through values with the arrow keys, and
// copies numbers. Without it the page is complete but for that: titles and text areas remain.
(() => {
  const tip = document.getElementById("tip");
  const said = document.getElementById("said");
  const reach = 26; // Pixels around a mark in which it is still meant.
  const marks = new Map(); // Drawing → its marks with a value.
  let current = null;

  // Titles become data: the browser's own tooltip would cover ours.
  for (const plate of document.querySelectorAll(".plate")) {
    const found = [];
    for (const title of [...plate.querySelectorAll("title")]) {
      const owner = title.parentNode;
      owner.dataset.tip = title.textContent;
      title.remove();
      if (owner.tagName !== "g") found.push(owner);
    }
    if (!found.length) continue;
    marks.set(plate, found);
    plate.setAttribute("tabindex", "0");
    plate.setAttribute("role", "application");
    plate.setAttribute("aria-roledescription", "figure");
    plate.setAttribute(
      "aria-label",
      plate.getAttribute("aria-label") + ". Arrow keys step through the values.",
    );
  }

  const centre = (mark) => {
    const box = mark.getBoundingClientRect();
    return { x: box.x + box.width / 2, y: box.y + box.height / 2, box };
  };

  const lines = (mark) => {
    const group = mark.parentNode.closest("[data-tip]");
    return [group ? group.dataset.tip : "", mark.dataset.tip];
  };

  const hide = () => {
    tip.hidden = true;
    if (current) current.classList.remove("on");
    current = null;
  };

  // Above the mark, or below it where there is no room; gone when the mark is out of sight.
  const place = () => {
    if (!current) return;
    const { x, box } = centre(current);
    tip.hidden = box.bottom < 0 || box.top > innerHeight;
    const size = tip.getBoundingClientRect();
    const above = box.top - size.height - 8;
    const below = Math.min(box.bottom + 8, innerHeight - size.height);
    tip.style.left = Math.max(4, Math.min(x - size.width / 2, innerWidth - size.width - 4)) + "px";
    tip.style.top = (above > 4 ? above : below) + "px";
  };

  const show = (mark, aloud) => {
    if (mark === current) return;
    hide();
    current = mark;
    mark.classList.add("on");
    const [head, body] = lines(mark);
    tip.replaceChildren();
    if (head) {
      const bold = document.createElement("b");
      bold.textContent = head;
      tip.append(bold);
    }
    tip.append(body);
    tip.hidden = false;
    place();
    if (aloud) said.textContent = (head ? head + ", " : "") + body;
  };

  // The mark that contains the point, else the nearest within reach.
  const nearest = (plate, x, y) => {
    let best = null;
    let least = reach * reach;
    for (const mark of marks.get(plate)) {
      const at = centre(mark);
      const small = at.box.width < 14 && at.box.height < 14;
      const inside = x >= at.box.left && x <= at.box.right && y >= at.box.top && y <= at.box.bottom;
      if (inside && !small) return mark;
      const distance = (at.x - x) ** 2 + (at.y - y) ** 2;
      if (distance < least) [best, least] = [mark, distance];
    }
    return best;
  };

  // The closest mark in the direction of an arrow; sideways distance counts three times.
  const next = (plate, from, dx, dy) => {
    const start = centre(from);
    let best = null;
    let least = Infinity;
    for (const mark of marks.get(plate)) {
      const at = centre(mark);
      const [x, y] = [at.x - start.x, at.y - start.y];
      const ahead = x * dx + y * dy;
      const aside = Math.abs(x * dy) + Math.abs(y * dx);
      if (mark === from || ahead < 0.5) continue;
      if (ahead + 3 * aside < least) [best, least] = [mark, ahead + 3 * aside];
    }
    return best;
  };

  const arrows = {
    ArrowLeft: [-1, 0],
    ArrowRight: [1, 0],
    ArrowUp: [0, -1],
    ArrowDown: [0, 1],
  };

  for (const plate of marks.keys()) {
    const point = (event) => {
      const mark = nearest(plate, event.clientX, event.clientY);
      if (mark) show(mark, false);
      else hide();
    };
    plate.addEventListener("pointermove", point);
    plate.addEventListener("pointerdown", point);
    plate.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") hide();
    });
    plate.addEventListener("blur", hide);
    plate.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hide();
      if (!(event.key in arrows)) return;
      event.preventDefault();
      const own = current && plate.contains(current) ? current : null;
      const mark = own ? next(plate, own, ...arrows[event.key]) : marks.get(plate)[0];
      if (!mark) return;
      mark.scrollIntoView({ block: "nearest", inline: "nearest" });
      show(mark, true);
    });
  }
  addEventListener("scroll", place, { passive: true, capture: true });

  for (const button of document.querySelectorAll(".copy")) {
    const details = button.parentNode.querySelector("details");
    const area = details.querySelector("textarea");
    const label = button.textContent;
    button.hidden = false;
    const answer = (text) => {
      button.textContent = text;
      said.textContent = text;
      setTimeout(() => (button.textContent = label), 2500);
    };
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(area.value);
        answer("Copied");
      } catch {
        // Not allowed here: show the numbers, selected, for the reader to copy.
        details.open = true;
        area.focus();
        area.select();
        answer(document.execCommand("copy") ? "Copied" : "Selected below: press Ctrl+C");
      }
    });
  }
})();
