"use strict";
// Sorts, filters and copies the table of trials, and adds copy buttons; the page is whole without it.
(() => {
  const copy = async (text, button) => {
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1500);
  };

  for (const block of document.querySelectorAll("pre.copy")) {
    const text = block.textContent;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "take";
    button.textContent = "Copy";
    button.addEventListener("click", () => copy(text, button));
    block.append(button);
  }

  // Closed details would be missing on paper.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of closed) one.open = false; });

  const table = document.getElementById("every");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const names = heads.map((head) => head.textContent.trim().replaceAll(" ", "_").toLowerCase());
  const rows = [...body.rows].map((row) => ({ row, cells: [...row.cells].map((cell) => cell.textContent) }));
  const number = (text) => (text.trim() === "" ? NaN : Number(text.replaceAll(",", "")));

  const sort = (column, down) => {
    const order = rows.map((one) => ({ one, text: one.cells[column], value: number(one.cells[column]) }));
    order.sort((a, b) => {
      const words = Number.isNaN(a.value) - Number.isNaN(b.value);  // numbers first, whichever the direction
      if (words) return words;
      const found = Number.isNaN(a.value) ? a.text.localeCompare(b.text) : a.value - b.value;
      return down ? -found : found;
    });
    body.append(...order.map(({ one }) => one.row));
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending"));
  });

  // A term is a word found anywhere in the row, or a comparison such as num_factors>8 or state=failed.
  const test = (term) => {
    const [, name, sign, wanted] = term.match(/^([^<>=]+)(<=|>=|<|>|=)(.+)$/) || [];
    const column = names.indexOf(name);
    if (column < 0) return (cells) => cells.some((cell) => cell.toLowerCase().includes(term));
    const limit = number(wanted);
    return (cells) => {
      const value = number(cells[column]);
      if (sign === "=") return cells[column].toLowerCase() === wanted || value === limit;
      return sign[0] === "<" ? value < limit || (sign === "<=" && value === limit)
        : value > limit || (sign === ">=" && value === limit);
    };
  };
  const shown = document.getElementById("shown");
  const filter = document.getElementById("filter");
  const apply = () => {
    const tests = filter.value.toLowerCase().split(/\s+/).filter(Boolean).map(test);
    let kept = 0;
    for (const { row, cells } of rows) {
      row.hidden = !tests.every((one) => one(cells));
      kept += !row.hidden;
    }
    shown.textContent = kept === rows.length ? `${kept} trials` : `${kept} of ${rows.length} trials`;
  };
  filter.addEventListener("input", apply);

  // The CSV has the exact numbers of the page's own record, one line for each shown trial in each cell.
  const quote = (value) => {
    let text = value === null || value === undefined || Array.isArray(value) ? "" : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;  // no formula for a spreadsheet
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = () => {
    const record = JSON.parse(document.getElementById("fmtune-data").textContent);
    const ran = record.cells.filter((cell) => cell.trials.number.length);
    const first = ran[0].trials;
    const params = [...new Set(ran.flatMap((cell) => Object.keys(cell.trials.params || {})))];
    const plain = ["number", "state", "value", "best_epoch", "seconds", "rows_per_s", "model_bytes", "attempts", "reason"];
    const lines = [["cell", ...plain, ...params.map((name) => `param_${name}`)]];
    const at = ran.map((cell) => new Map(cell.trials.number.map((n, i) => [n, i])));
    for (const row of body.rows) {
      if (row.hidden) continue;
      const n = Number(row.cells[0].textContent);
      ran.forEach((cell, which) => {
        const i = at[which].get(n);
        if (i === undefined) return;
        const own = cell.trials.params ? [cell.trials.params, i] : [first.params, at[0].get(n)];
        lines.push([`${cell.device}-${cell.layout}`, ...plain.map((name) => cell.trials[name][i]),
          ...params.map((name) => (own[0][name] || [])[own[1]])]);
      });
    }
    return `${lines.map((line) => line.map(quote).join(",")).join("\n")}\n`;
  };
  const button = document.getElementById("copy-csv");
  button.addEventListener("click", () => copy(csv(), button));
  document.getElementById("tools").hidden = false;
  apply();
})();
