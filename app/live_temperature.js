// Draws diagram and numbers at a temperature from the grid that came with the page, so
// that dragging needs no server; letting go sends the step, and exact values come back.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 60, right: 20, top: 10, bottom: 40 };
const HEIGHT = 380;
const BARS = 62; // of the height, for the rows of each bin
const SETTLE = 300; // ms after the last key before the step is sent

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".live");
  root.view = root.view ?? build(root);
  root.view.take(data, setTriggerValue);
  return () => {
    root.view?.leave();
    root.view = undefined;
  };
}

function build(root) {
  const slider = root.querySelector("input");
  const label = root.querySelector("output");
  const picture = root.querySelector("svg");
  const legend = root.querySelector(".legend");
  const table = root.querySelector("table");
  let data = null;
  let send = null;
  let step = 0;
  let sent = null;
  let timer = 0;
  let frame = 0;
  let isByKey = false;

  const draw = () => {
    frame = 0;
    const shown = step === 0 ? null : at(data, step);
    const name = `T = ${digits(temperature(data, step))}`;
    label.textContent = name;
    slider.setAttribute("aria-valuetext", name);
    slider.style.setProperty("--part", `${50 + (50 * step) / data.steps}%`);
    drawLegend(legend, data, step);
    drawTable(table, data, shown);
    drawPicture(picture, data, shown, root.clientWidth);
    const gap = shown ? shown.numbers[0] : data.fitted.numbers[0];
    const side = gap < 0 ? "below" : "above";
    const tried = shown ? `Tried, ${name}` : `Fitted, ${name}`;
    picture.setAttribute(
      "aria-label",
      `Reliability diagram. ${tried}: confidence lies ` +
        `${Math.abs(100 * gap).toFixed(1)} points ${side} what came true.`,
    );
  };
  const redraw = () => {
    root.setAttribute("aria-busy", step !== data.step);
    frame = frame || requestAnimationFrame(draw);
  };
  const commit = () => {
    clearTimeout(timer);
    if (step === data.step) return;
    sent = step;
    send("step", step);
  };
  slider.addEventListener("keydown", () => {
    isByKey = true;
  });
  slider.addEventListener("pointerdown", () => {
    isByKey = false;
  });
  slider.addEventListener("input", () => {
    step = Number(slider.value);
    redraw();
  });
  slider.addEventListener("change", () => {
    clearTimeout(timer);
    timer = setTimeout(commit, isByKey ? SETTLE : 0);
  });
  // a button pressed within those milliseconds is heard after the step
  slider.addEventListener("blur", commit);
  root.querySelector("button").addEventListener("click", () => save(picture, root));
  const observer = new ResizeObserver(() => data && redraw());
  observer.observe(root);

  return {
    take(given, setTriggerValue) {
      // what was dragged to since then stays, unless the page chose another step
      const isAnswer = given.step === sent;
      const isElsewhere = data === null || (given.step !== data.step && !isAnswer);
      if (isAnswer) sent = null;
      data = given;
      send = setTriggerValue;
      slider.min = -data.steps;
      slider.max = data.steps;
      const isDragged = slider.matches(":active");
      if (isElsewhere && !isDragged) step = data.step;
      slider.value = step;
      root.setAttribute("aria-busy", step !== data.step);
      draw();
    },
    leave() {
      clearTimeout(timer);
      cancelAnimationFrame(frame);
      observer.disconnect();
    },
  };
}

function temperature(data, step) {
  return data.center * 10 ** (step / data.steps);
}

// Between two temperatures of the grid, numbers and sums of bins lie in between.
function at(data, step) {
  if (step === data.step && data.exact) return data.exact;
  const { temperatures, numbers, weight, confidence, accuracy } = data.grid;
  const wanted = temperature(data, step);
  let i = 0;
  while (i < temperatures.length - 2 && temperatures[i + 1] > wanted) i += 1;
  const span = Math.log(temperatures[i + 1] / temperatures[i]);
  const part = Math.min(1, Math.max(0, Math.log(wanted / temperatures[i]) / span));
  const mix = (a, b) => a + part * (b - a);
  const mixed = (rows) => rows[i].map((value, j) => mix(value, rows[i + 1][j]));
  return {
    numbers: mixed(numbers),
    weight: mixed(weight),
    confidence: mixed(confidence),
    accuracy: mixed(accuracy),
  };
}

function digits(value) {
  return Number(value.toPrecision(4)).toString();
}

function drawLegend(legend, data, step) {
  const entries = [["◆", data.colors.fitted, `Fitted, T = ${digits(data.center)}`]];
  if (step !== 0) {
    const name = `Tried, T = ${digits(temperature(data, step))}`;
    entries.push(["▼", data.colors.tried, name]);
  }
  legend.replaceChildren(
    ...entries.map(([mark, color, text]) => {
      const item = document.createElement("span");
      const sign = document.createElement("span");
      sign.textContent = `${mark} `;
      sign.style.color = color;
      item.append(sign, text);
      return item;
    }),
  );
}

function drawTable(table, data, shown) {
  const body = table.tBodies[0];
  table.querySelector(".tried").hidden = shown === null;
  body.replaceChildren(
    ...data.measures.map((measure, i) => {
      const row = document.createElement("tr");
      const fitted = cell("td", format(measure, data.fitted.numbers[i]));
      if (data.fitted.words[i]) {
        const words = document.createElement("small");
        words.textContent = data.fitted.words[i];
        fitted.append(document.createElement("br"), words);
      }
      row.append(cell("th", measure.label), fitted);
      row.firstChild.scope = "row";
      if (shown) row.append(cell("td", format(measure, shown.numbers[i])));
      return row;
    }),
  );
}

function cell(kind, text) {
  const element = document.createElement(kind);
  element.textContent = text;
  return element;
}

function format(measure, value) {
  if (value === null || !Number.isFinite(value)) return "–";
  const text = Math.abs(value * measure.factor).toFixed(measure.digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? "−" : measure.isSigned ? "+" : "") + text;
}

function drawPicture(picture, data, shown, width) {
  if (!width) return;
  const right = width - MARGIN.right;
  const floor = HEIGHT - MARGIN.bottom - BARS - 14;
  const x = (v) => MARGIN.left + v * (right - MARGIN.left);
  const y = (v) => floor - v * (floor - MARGIN.top);
  const base = HEIGHT - MARGIN.bottom;
  const parts = [];
  const put = (kind, attributes, text) => {
    const element = document.createElementNS(SVG, kind);
    for (const [name, value] of Object.entries(attributes)) {
      element.setAttribute(name, value);
    }
    if (text !== undefined) element.textContent = text;
    parts.push(element);
  };
  for (let i = 0; i <= 5; i += 1) {
    const v = i / 5;
    const words = `${20 * i}%`;
    put("line", { class: "grid", x1: x(0), x2: x(1), y1: y(v), y2: y(v) });
    put("text", { x: MARGIN.left - 8, y: y(v) + 4, "text-anchor": "end" }, words);
    put("text", { x: x(v), y: base + 16, "text-anchor": "middle" }, words);
  }
  put("text", { x: x(0.5), y: base + 34, "text-anchor": "middle" }, "Confidence");
  put(
    "text",
    { "text-anchor": "middle", transform: `translate(12 ${y(0.5)}) rotate(-90)` },
    "Accuracy",
  );
  put(
    "text",
    { "text-anchor": "middle", transform: `translate(12 ${base - BARS / 2}) rotate(-90)` },
    "Rows",
  );
  put("line", { class: "diagonal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) });
  const series = [{ ...data.fitted, color: data.colors.fitted, mark: diamond }];
  if (shown) series.push({ ...shown, color: data.colors.tried, mark: triangle });
  const tallest = Math.max(...data.fitted.weight, ...(shown ? shown.weight : [0]));
  const mark = round(tallest * data.n);
  for (const rows of [0, mark]) {
    const height = base - (rows / (tallest * data.n)) * BARS;
    put("line", { class: "grid", x1: x(0), x2: x(1), y1: height, y2: height });
    const words = rows.toLocaleString("en");
    put("text", { x: MARGIN.left - 8, y: height + 4, "text-anchor": "end" }, words);
  }
  const slot = (x(1) - x(0)) / data.fitted.weight.length;
  series.forEach((item, place) => {
    const bins = item.weight
      .map((w, j) => ({ w, j, c: item.confidence[j] / w, a: item.accuracy[j] / w }))
      .filter((bin) => bin.w > 1e-12);
    const isThin = (bin) => bin.w * data.n < data.thin;
    const solid = bins.filter((bin) => !isThin(bin));
    const path = solid.map((bin, i) => `${i ? "L" : "M"}${x(bin.c)} ${y(bin.a)}`);
    if (item.low) {
      for (const bin of bins) {
        const color = isThin(bin) ? data.colors.thin : item.color;
        const ends = { x1: x(bin.c), x2: x(bin.c), stroke: color };
        put("line", { ...ends, y1: y(item.low[bin.j]), y2: y(item.high[bin.j]) });
      }
    }
    put("path", { d: path.join(""), fill: "none", stroke: item.color, opacity: 0.5 });
    for (const bin of bins) {
      const color = isThin(bin) ? "none" : item.color;
      const stroke = isThin(bin) ? data.colors.thin : item.color;
      put("path", { d: item.mark(x(bin.c), y(bin.a)), fill: color, stroke });
      const height = (bin.w / tallest) * BARS;
      const wide = (0.8 * slot) / series.length;
      const left = x(0) + (bin.j + 0.1) * slot + place * wide;
      put("rect", { x: left, y: base - height, width: wide, height, fill: item.color });
    }
  });
  picture.setAttribute("width", width);
  picture.setAttribute("height", HEIGHT);
  picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  // the style goes with the picture when it is saved
  const style = document.createElementNS(SVG, "style");
  style.textContent =
    "text { fill: currentColor; font-size: 12px; opacity: 0.75 }" +
    ".grid { stroke: currentColor; opacity: 0.15 }" +
    ".diagonal { stroke: currentColor; opacity: 0.55; stroke-dasharray: 6 5 }";
  picture.replaceChildren(style, ...parts);
}

function save(picture, root) {
  const copy = picture.cloneNode(true);
  const { color, fontFamily } = getComputedStyle(root);
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("style", `color: ${color}; font-family: ${fontFamily}`);
  const text = new XMLSerializer().serializeToString(copy);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  link.download = "tried-temperature.svg";
  link.click();
  URL.revokeObjectURL(link.href);
}

function diamond(x, y) {
  return `M${x} ${y - 6}L${x + 6} ${y}L${x} ${y + 6}L${x - 6} ${y}Z`;
}

function triangle(x, y) {
  return `M${x - 6} ${y - 5}h12l-6 11Z`;
}

// The largest of 1, 2, 5, 10, 20, ... that is not above a number of rows.
function round(rows) {
  const power = 10 ** Math.floor(Math.log10(Math.max(rows, 1)));
  return [5, 2, 1].find((digit) => digit * power <= Math.max(rows, 1)) * power;
}
