// Sort a table by a click (or Enter) on a column's title: numbers largest first, then the other way round.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => title.querySelector("button").addEventListener("click", () => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const key = row => row.cells[column].dataset.sort;
    const isNumber = value => value !== "" && Number.isFinite(Number(value));
    const numeric = rows.every(row => key(row) === undefined || isNumber(key(row)));
    const before = title.getAttribute("aria-sort");
    const ascending = before ? before === "descending" : !numeric;
    rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);  // no value: always last
      const order = numeric ? x - y : x.localeCompare(y, undefined, {numeric: true});
      return ascending ? order : -order;
    });
    titles.forEach(other => other.removeAttribute("aria-sort"));
    title.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    body.append(...rows);
  }));
}
