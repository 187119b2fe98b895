"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      for (const body of table.tBodies) {
        const rows = [...body.rows];
        const key = (row) => row.cells[index].dataset.key ?? row.cells[index].textContent;
        const number = (row) => (Number.isNaN(parseFloat(key(row))) ? Infinity : parseFloat(key(row)));
        const numeric = rows.every((row) => key(row) === "–" || number(row) < Infinity);
        rows.sort((one, other) => {
          const order = numeric
            ? number(one) - number(other) || 0
            : key(one).localeCompare(key(other));
          return down ? -order : order;
        });
        body.append(...rows);
      }
    });
  });
}
