// Reports in a real browser: quiet, self-contained, visible in light, dark and print, usable, accessible.
//
//   make test-browser          pages and screenshots lie in test-output/browser afterwards
//
// Needs node 20, `npm ci` in this folder, and a Chromium: $CHROMIUM, or chromium, chromium-browser, google-chrome.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const PAGES = resolve(process.env.PAGES ?? "test-output/browser");
const SHOTS = join(PAGES, "screenshots");
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const SCREEN = { width: 1280, height: 800 };
const WHOLE = ["digits", "heavy", "thousand", "failed", "empty", "comparison"];

const which = (name) => {
  try {
    return execFileSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).trim();
  } catch {
    return "";
  }
};
const found = process.env.CHROMIUM || ["chromium", "chromium-browser", "google-chrome"].map(which).find(Boolean);
if (!found) {
  throw new Error("no Chromium: apt-get install chromium, or name one: CHROMIUM=/path/to/chrome make test-browser");
}

let browser;
before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  browser = await chromium.launch({ executablePath: found, headless: true, args: FLAGS });
});
after(() => browser?.close());

// Opens a page and notes all that a quiet, self-contained one never does.
const open = async (name, options = {}) => {
  const context = await browser.newContext({ viewport: SCREEN, ...options });
  const page = await context.newPage();
  const noise = [];
  const address = pathToFileURL(join(PAGES, `${name}.html`)).href;
  page.on("console", (said) => { if (["error", "warning"].includes(said.type())) noise.push(`console: ${said.text()}`); });
  page.on("pageerror", (error) => noise.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => { noise.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => {
    const url = request.url();
    if (url !== address && !url.startsWith("data:")) noise.push(`request: ${url}`);
  });
  page.on("popup", () => noise.push("popup"));
  if (options.javaScriptEnabled !== false) {
    await page.addInitScript(() => {
      globalThis.blocked = [];
      addEventListener("securitypolicyviolation", (e) => globalThis.blocked.push(`${e.violatedDirective}: ${e.blockedURI}`));
    });
  }
  await page.goto(address, { waitUntil: "load" });
  return { page, noise, close: () => context.close() };
};
const shot = (page, name, options = {}) => page.screenshot({ path: join(SHOTS, `${name}.png`), ...options });
const cells = (page, column) => page.evaluate((n) => [...document.querySelectorAll("#every tbody tr")]
  .filter((row) => !row.hidden).map((row) => row.cells[n].textContent.trim()), column);
const column = (page, name) => page.evaluate((wanted) => [...document.querySelectorAll("#every thead th")]
  .findIndex((head) => head.textContent.trim() === wanted), name);

describe("every page is quiet", () => {
  for (const name of WHOLE) {
    test(`${name}: no error, no request, nothing blocked, no dialog`, async () => {
      const { page, noise, close } = await open(name);
      assert.deepEqual(noise, []);
      assert.deepEqual(await page.evaluate(() => globalThis.blocked), []);
      await close();
    });
  }
});

describe("charts are visible", () => {
  for (const name of ["digits", "heavy", "thousand", "comparison"]) {
    for (const look of ["light", "dark", "print"]) {
      test(`${name} in ${look}`, async () => {
        const { page, close } = await open(name);
        await page.emulateMedia(look === "print" ? { media: "print" } : { media: "screen", colorScheme: look });
        const charts = await page.evaluate(() => {
          const light = (colour) => {
            const [r, g, b] = colour.match(/[\d.]+/g).map((v) => {
              const share = Number(v) / 255;
              return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const paper = light(getComputedStyle(document.body).backgroundColor);
          const contrast = (colour) => {
            const own = light(colour);
            return (Math.max(own, paper) + 0.05) / (Math.min(own, paper) + 0.05);
          };
          return [...document.querySelectorAll("figure svg")].map((svg) => {
            const box = svg.getBoundingClientRect();
            const marks = [...svg.querySelectorAll("[class*='s-c'], [class*='f-c']")].map((mark) => {
              const style = getComputedStyle(mark);
              return contrast(mark.getAttribute("class").includes("s-c") ? style.stroke : style.fill);
            });
            const texts = [...svg.querySelectorAll("text")].map((text) => contrast(getComputedStyle(text).fill));
            return { label: svg.getAttribute("aria-label"), width: box.width, height: box.height,
              marks: Math.min(...marks), texts: Math.min(...texts) };
          });
        });
        assert.ok(charts.length >= (name === "comparison" ? 1 : 5), `${charts.length} charts`);
        for (const chart of charts) {
          assert.ok(chart.width > 250 && chart.height > 90, `${chart.label}: ${chart.width} x ${chart.height}`);
          assert.ok(chart.marks > 2 && chart.texts > 4.5, `${chart.label}: contrast ${chart.marks}, ${chart.texts}`);
        }
        await shot(page, `${name}-${look}`, { fullPage: name !== "thousand" || look !== "print" });
        if (look === "print" && name === "digits") await page.pdf({ path: join(SHOTS, "digits.pdf") });
        await close();
      });
    }
  }
});

test("the first screen shows the verdict, the winner and the matrix", async () => {
  for (const name of ["digits", "heavy", "thousand"]) {
    const { page, close } = await open(name);
    for (const part of [".lead", ".also", "#winner h2", "#winner .figures", "#matrix h2", "#matrix table"]) {
      const box = await page.locator(part).first().boundingBox();
      assert.ok(box && box.y >= 0 && box.y + box.height <= SCREEN.height, `${name}: ${part} ends at ${box?.y + box?.height}`);
      assert.ok(box.x >= 0 && box.x + box.width <= SCREEN.width, `${name}: ${part} is wider than the screen`);
    }
    await shot(page, `${name}-first-screen`);
    await close();
  }
});

test("nothing is wider than a telephone's screen", async () => {
  const { page, close } = await open("digits", { viewport: { width: 390, height: 844 } });
  const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= room, `${wide} > ${room}`);
  await shot(page, "digits-telephone", { fullPage: true });
  await close();
});

test("a comparison can be read on a telephone", async () => {
  const { page, close } = await open("comparison", { viewport: { width: 390, height: 844 } });
  const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= room, `${wide} > ${room}`);
  const labels = await page.locator("#pace figure text").evaluateAll((all) =>
    all.map((one) => parseFloat(getComputedStyle(one).fontSize) * one.ownerSVGElement.getScreenCTM().a));
  assert.ok(labels.length > 0 && Math.min(...labels) > 9, `${Math.min(...labels)} px`);
  const broken = await page.locator("#studies tbody th, #sources tbody th").evaluateAll((all) =>
    all.filter((one) => one.scrollWidth > one.clientWidth || getComputedStyle(one).overflowWrap !== "normal").length);
  assert.equal(broken, 0, "names break inside words");
  await shot(page, "comparison-telephone", { fullPage: true });
  await close();
});

describe("the table of trials", () => {
  for (const name of ["digits", "thousand"]) {
    test(`${name}: a click sorts, another one turns the order`, async () => {
      const { page, noise, close } = await open(name);
      const at = await column(page, "factors_lr");
      const head = page.locator("#every thead th").nth(at).locator("button");
      for (const [sign, word] of [[1, "ascending"], [-1, "descending"]]) {
        await head.click();
        assert.equal(await page.locator("#every thead th").nth(at).getAttribute("aria-sort"), word);
        const values = (await cells(page, at)).map(Number);
        assert.ok(values.length >= 64 && values.every((v, i) => i === 0 || sign * (v - values[i - 1]) >= 0), word);
      }
      assert.deepEqual(noise, []);
      await close();
    });

    test(`${name}: a filter filters, and clearing it brings all back`, async () => {
      const { page, close } = await open(name);
      const [state, factors] = [await column(page, "state"), await column(page, "num_factors")];
      const all = (await cells(page, 0)).length;
      await page.fill("#filter", "complete num_factors>8");
      const kept = (await cells(page, factors)).map(Number);
      assert.ok(kept.length > 0 && kept.length < all && kept.every((v) => v > 8));
      assert.ok((await cells(page, state)).every((word) => word === "complete"));
      assert.equal(await page.textContent("#shown"), `${kept.length} of ${all} trials`);
      await page.fill("#filter", "no such word");
      assert.equal((await cells(page, 0)).length, 0);
      await page.fill("#filter", "");
      assert.equal((await cells(page, 0)).length, all);
      await close();
    });

    test(`${name}: copying gives the shown trials of every cell as CSV`, async () => {
      const { page, close } = await open(name, { permissions: ["clipboard-read", "clipboard-write"] });
      await page.fill("#filter", "optimizer=adam complete");
      const shown = await cells(page, 0);
      await page.click("#copy-csv");
      await page.waitForFunction(() => document.querySelector("#copy-csv").textContent === "Copied");
      const lines = (await page.evaluate(() => navigator.clipboard.readText())).trim().split("\n");
      assert.match(lines[0], /^cell,number,state,value,.*param_factors_lr/);
      assert.equal(lines.length, 1 + 2 * shown.length);
      const [names, first] = [lines[0].split(","), lines[1].split(",")];
      const record = await page.evaluate(() => JSON.parse(document.getElementById("fmtune-data").textContent).cells[0].trials);
      const row = record.number.indexOf(Number(first[names.indexOf("number")]));
      assert.equal(Number(first[names.indexOf("value")]), record.value[row]);
      assert.equal(Number(first[names.indexOf("param_factors_lr")]), record.params.factors_lr[row]);
      await close();
    });
  }
});

test("without JavaScript everything is there but sorting, filtering and copying", async () => {
  const { page, close } = await open("digits", { javaScriptEnabled: false });
  assert.equal(await page.locator("#every tbody tr").count(), 64);
  assert.equal(await page.locator("#tools").isVisible(), false);
  for (const part of ["#verdict", "#winner", "#matrix", "#quality svg", "#honesty table", "#every"]) {
    assert.ok(await page.locator(part).first().isVisible(), part);
  }
  await page.locator("#quality summary").click();
  assert.ok(await page.locator("#quality details table").isVisible());
  await close();
});

test("hostile strings in every free-text slot are inert", async () => {
  const names = readdirSync(join(PAGES, "hostile")).filter((file) => file.endsWith(".html"));
  assert.ok(names.length >= 60);
  for (const file of names) {
    const { page, noise, close } = await open(`hostile/${file.replace(".html", "")}`);
    await page.evaluate(() => {
      for (const one of document.querySelectorAll("details")) one.open = true;
      for (const head of document.querySelectorAll("#every thead button")) head.click();
      for (const one of document.querySelectorAll("main *")) one.dispatchEvent(new MouseEvent("mouseover"));
    });
    await page.fill("#filter", "script<9");
    assert.deepEqual([...noise, ...(await page.evaluate(() => globalThis.blocked))], [], file);
    assert.equal(await page.evaluate(() => document.querySelectorAll("script").length), 2, file);
    assert.equal(await page.evaluate(() => document.querySelectorAll("iframe, object, embed, base, form").length), 0, file);
    await close();
  }
});

describe("axe finds no serious fault", () => {
  for (const name of WHOLE.filter((one) => one !== "heavy")) {
    for (const look of ["light", "dark"]) {
      test(`${name} in ${look}`, async () => {
        const { page, close } = await open(name, { colorScheme: look });
        await page.evaluate(AXE);
        const faults = await page.evaluate(async () => {
          const { violations } = await globalThis.axe.run(document, { resultTypes: ["violations"] });
          return violations.map((v) => `${v.impact}: ${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 120)).join(" | ")}`);
        });
        assert.deepEqual(faults.filter((fault) => /^(serious|critical)/.test(fault)), []);
        await close();
      });
    }
  }
});

test("pages are small: 300 kB at 200 trials, 2 MB at 1,000", () => {
  assert.ok(statSync(join(PAGES, "heavy.html")).size < 300_000);
  assert.ok(statSync(join(PAGES, "thousand.html")).size < 2_000_000);
});
