document.querySelectorAll("th[data-sort]").forEach(function (head) {
  function sort() {
    const table = head.closest("table"), body = table.tBodies[0], place = head.cellIndex;
    const ascending = head.getAttribute("aria-sort") === "descending";
    table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const value = (row) => row.cells[place].dataset.value ?? row.cells[place].textContent;
    const numbers = head.dataset.sort === "number";
    const rows = Array.from(body.rows).sort((a, b) =>
      numbers ? value(a) - value(b) : value(a).localeCompare(value(b)));
    if (!ascending) rows.reverse();
    body.append(...rows);
  }
  head.tabIndex = 0;
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
});
