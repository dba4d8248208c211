"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const config = {
    displaylogo: false, responsive: true, scrollZoom: false, modeBarButtonsToRemove: ["select2d", "lasso2d"],
    displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
  };
  const problem = (text) => (document.documentElement.dataset.problem = text);
  window.addEventListener("error", (event) => problem(event.message));
  window.addEventListener("unhandledrejection", (event) => problem(String(event.reason)));

  // Colours are names of properties of the style, "var(--blue)": here they become what they are at the moment.
  function resolved(value, style) {
    if (typeof value === "string") {
      const name = /^var\((--[\w-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((part) => resolved(part, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, resolved(part, style)]));
  }

  function axis(given) {
    const shared = { gridcolor: "var(--grid)", zerolinecolor: "var(--grid)", linecolor: "var(--line)", tickcolor: "var(--line)" };
    return { ...shared, automargin: true, ...given };
  }

  function layoutOf(given, element) {
    const narrow = element.clientWidth < 480;
    const { meta = {}, ...rest } = given;
    const margin = meta.tight ? { l: 4, r: 4, t: 8, b: 8 } : { l: narrow ? 44 : 56, r: narrow ? 10 : 18, t: 36, b: 44 };
    return {
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 12 : 13, color: "var(--ink)" },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin, uirevision: "same",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: "var(--line)", activecolor: "var(--ink)" },
      hoverlabel: { bgcolor: "var(--card)", bordercolor: "var(--line)", font: { color: "var(--ink)" } },
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
      dragmode: "ontouchstart" in window ? false : "zoom",
      ...rest, xaxis: axis(rest.xaxis), yaxis: axis(rest.yaxis),
    };
  }

  function drawFigure(name, style) {
    const element = document.getElementById(name), figure = data.figures[name];
    const aspect = (figure.layout.meta || {}).aspect;
    if (aspect) {
      Object.assign(element.style, { flex: "none", margin: "auto", maxWidth: "860px" });
      element.style.height = `${aspect * element.clientWidth}px`;
    }
    return Plotly.react(element, resolved(figure.data, style), resolved(layoutOf(figure.layout, element), style), config);
  }

  // An icosahedron, each of its faces divided in four, some rounds.
  function unitSphere(rounds) {
    const t = (1 + Math.sqrt(5)) / 2;
    let points = [[-1, t, 0], [1, t, 0], [-1, -t, 0], [1, -t, 0], [0, -1, t], [0, 1, t], [0, -1, -t], [0, 1, -t],
      [t, 0, -1], [t, 0, 1], [-t, 0, -1], [-t, 0, 1]].map(unit);
    let faces = [[0, 11, 5], [0, 5, 1], [0, 1, 7], [0, 7, 10], [0, 10, 11], [1, 5, 9], [5, 11, 4], [11, 10, 2], [10, 7, 6],
      [7, 1, 8], [3, 9, 4], [3, 4, 2], [3, 2, 6], [3, 6, 8], [3, 8, 9], [4, 9, 5], [2, 4, 11], [6, 2, 10], [8, 6, 7], [9, 8, 1]];
    for (let round = 0; round < rounds; round++) {
      const known = new Map();
      const between = (i, j) => {
        const key = i < j ? `${i},${j}` : `${j},${i}`;
        if (!known.has(key)) known.set(key, points.push(unit(points[i].map((x, k) => x + points[j][k]))) - 1);
        return known.get(key);
      };
      faces = faces.flatMap(([a, b, c]) => {
        const ab = between(a, b), bc = between(b, c), ca = between(c, a);
        return [[a, ab, ca], [b, bc, ab], [c, ca, bc], [ab, bc, ca]];
      });
    }
    return { points, faces };
  }

  function unit(v) {
    const length = Math.hypot(...v);
    return v.map((x) => x / length);
  }

  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];

  class Mesh {
    constructor() { Object.assign(this, { x: [], y: [], z: [], i: [], j: [], k: [] }); }
    add(points, faces) {
      const start = this.x.length;
      for (const [x, y, z] of points) { this.x.push(x); this.y.push(y); this.z.push(z); }
      for (const [i, j, k] of faces) { this.i.push(start + i); this.j.push(start + j); this.k.push(start + k); }
    }
    stick(start, end, radius, sides = 10) {
      const along = unit(end.map((x, k) => x - start[k]));
      const u = unit(cross(along, Math.abs(along[2]) < 0.9 ? [0, 0, 1] : [1, 0, 0])), v = cross(along, u);
      const points = [], faces = [];
      for (let n = 0; n < sides; n++) {
        const c = radius * Math.cos((2 * Math.PI * n) / sides), s = radius * Math.sin((2 * Math.PI * n) / sides);
        for (const base of [start, end]) points.push(base.map((x, k) => x + c * u[k] + s * v[k]));
        const a = 2 * n, b = (2 * n + 2) % (2 * sides);
        faces.push([a, b, a + 1], [b, b + 1, a + 1]);
      }
      this.add(points, faces);
    }
  }

  function crystalTraces(crystal) {
    const count = crystal.elements.reduce((sum, { atoms }) => sum + atoms.length, 0);
    const sphere = unitSphere(count > 120 ? 1 : 2), meshes = crystal.elements.map(() => new Mesh());
    crystal.elements.forEach(({ atoms, radius }, n) => {
      for (const atom of atoms) meshes[n].add(sphere.points.map((p) => p.map((x, k) => atom[k] + radius * x)), sphere.faces);
    });
    for (const [start, end, n] of crystal.sticks) meshes[n].stick(start, end, 0.09);
    const light = { ambient: 0.62, diffuse: 0.55, specular: 0.22, roughness: 0.45, fresnel: 0.05 };
    const traces = crystal.elements.map((element, n) => ({
      type: "mesh3d", ...meshes[n], color: element.colour, lighting: light, lightposition: { x: 2000, y: 600, z: 4000 },
      flatshading: false, hovertemplate: `${element.symbol}<extra></extra>`,
    }));
    const [a, b, c] = crystal.cell, lines = { x: [], y: [], z: [] };
    const corner = (i, j, k) => [0, 1, 2].map((n) => i * a[n] + j * b[n] + k * c[n]);
    const edge = (from, to) => ["x", "y", "z"].forEach((name, n) => lines[name].push(from[n], to[n], null));
    for (const i of [0, 1]) for (const j of [0, 1]) {
      edge(corner(0, i, j), corner(1, i, j));
      edge(corner(i, 0, j), corner(i, 1, j));
      edge(corner(i, j, 0), corner(i, j, 1));
    }
    traces.push({ type: "scatter3d", mode: "lines", ...lines, line: { color: "var(--muted)", width: 3 }, hoverinfo: "skip" });
    return traces;
  }

  function hasWebGL() {
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("webgl") || canvas.getContext("experimental-webgl");
    if (context) (context.getExtension("WEBGL_lose_context") || { loseContext() {} }).loseContext();
    return Boolean(context);
  }

  // Far enough to see all: the scene is scaled so that the product of its edges is 1, and is seen under 45 degrees.
  function eyeOf(traces) {
    const edges = ["x", "y", "z"].map((name) => {
      const bounds = traces.map((trace) => trace[name].filter((value) => value !== null));
      const all = bounds.flatMap((values) => [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))]);
      return Math.max(...all) - Math.min(...all);
    });
    const scale = 2 * Math.cbrt(edges[0] * edges[1] * edges[2]);
    const distance = Math.max(2.25 * Math.hypot(...edges), 2.75 * edges[2]) / scale;
    const [x, y, z] = unit([1.55, 0.75, 0.55]).map((part) => part * distance);
    return { x, y, z };
  }

  function drawCrystal(crystal, number, style) {
    const hidden = { visible: false, showspikes: false }, traces = crystalTraces(crystal);
    const layout = {
      margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", showlegend: false, uirevision: "same",
      hoverlabel: { bgcolor: "var(--card)", bordercolor: "var(--line)", font: { color: "var(--ink)" } },
      scene: {
        xaxis: hidden, yaxis: hidden, zaxis: hidden, aspectmode: "data", dragmode: "orbit",
        camera: { eye: eyeOf(traces), projection: { type: "perspective" } },
      },
    };
    const element = document.getElementById(`crystal-${number}`);
    return Plotly.react(element, resolved(traces, style), resolved(layout, style), { ...config, displayModeBar: false });
  }

  const pause = () => new Promise((resolve) => setTimeout(resolve));
  const drawn = new Set(), webgl = data.crystals.length > 0 && hasWebGL();
  const style = getComputedStyle(document.documentElement); // follows the colour scheme

  async function drawFigures() {
    for (const name of Object.keys(data.figures)) {
      await drawFigure(name, style);
      await pause();
    }
    document.documentElement.dataset.figures = String(Object.keys(data.figures).length);
  }

  // Scenes are drawn when they come near, for they take time.
  async function drawCrystals(numbers) {
    for (const number of numbers) {
      drawn.add(number);
      if (webgl) await drawCrystal(data.crystals[number], number, style);
      else document.getElementById(`crystal-${number}`).textContent = "This browser has no WebGL, which the picture needs.";
      await pause();
    }
    document.documentElement.dataset.crystals = String(drawn.size);
  }

  const near = new IntersectionObserver((entries) => {
    const numbers = entries.filter((entry) => entry.isIntersecting).map(({ target }) => Number(target.id.split("-")[1]));
    for (const number of numbers) near.unobserve(document.getElementById(`crystal-${number}`));
    drawCrystals(numbers);
  }, { rootMargin: "400px" });

  async function redraw() {
    await drawFigures();
    await drawCrystals([...drawn]);
  }

  drawFigures().then(() => data.crystals.forEach((_, n) => near.observe(document.getElementById(`crystal-${n}`))));
  window.addEventListener("beforeprint", () => drawCrystals(data.crystals.keys()));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let width = window.innerWidth, waiting;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return; // only the address bar of a phone came or went
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 200);
  });
})();
