/** Corners of a box (x, y, z of its middle, length, width, height, yaw): the lower four, then the upper four. */
function cornersOf([x, y, z, length, width, height, yaw]) {
  const cos = Math.cos(yaw), sin = Math.sin(yaw);
  return [-0.5, 0.5].flatMap((up) => [[0.5, 0.5], [0.5, -0.5], [-0.5, -0.5], [-0.5, 0.5]].map(([ahead, aside]) => [
    x + ahead * length * cos - aside * width * sin,
    y + ahead * length * sin + aside * width * cos,
    z + up * height,
  ]));
}

/** Pairs of points: the edges of a box, and where its front is. */
function edgesOf(box) {
  const corners = cornersOf(box);
  const edges = [0, 1, 2, 3].flatMap((at) => [[at, (at + 1) % 4], [at + 4, (at + 1) % 4 + 4], [at, at + 4]]);
  const middle = (one, other) => one.map((value, axis) => (value + other[axis]) / 2);
  return [...edges.map(([one, other]) => [corners[one], corners[other]]), [box.slice(0, 3), middle(corners[0], corners[5])]];
}

/** Both ends of an edge as (x, y) by a function to (x, y, depth) before division; null behind the camera. */
function projected([one, other], toCamera, near = 0.2) {
  let a = toCamera(one), b = toCamera(other);
  if (a[2] < near && b[2] < near) return null;
  const cut = (behind, before) => behind.map((value, at) => value + (before[at] - value) * (near - behind[2]) / (before[2] - behind[2]));
  if (a[2] < near) a = cut(a, b); else if (b[2] < near) b = cut(b, a);
  return [a[0] / a[2], a[1] / a[2], b[0] / b[2], b[1] / b[2]];
}

/** Numbers of little-endian 16 bits, in hundredths. */
function hundredths(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Float32Array.from(new Int16Array(bytes.buffer), (value) => value / 100);
}

/** Metres ahead and aside of the sensor that are drawn, for a scale. */
const CORNER = 2;

/** Points and boxes in space: dragging turns, with Shift moves, the wheel or two fingers zoom. */
class SpacePane {
  constructor({ title, points, boxes, forward }) {
    Object.assign(this, { points, boxes });
    this.start = { turn: forward === "y" ? Math.PI / 2 : 0, tilt: 0.62, distance: 48, target: [0, 0, 0] };
    const ahead = forward === "y" ? [0, 8, 0] : [8, 0, 0];
    this.start.target = ahead;
    Object.assign(this, structuredClone(this.start));
    this.canvas = make("canvas");
    this.element = make("div", { className: "pane" }, this.canvas, make("span", { className: "caption", textContent: title }));
    const zoom = (factor) => {
      this.distance = clamp(this.distance / factor, 2, 400);
      this.draw();
    };
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoom(Math.exp(-event.deltaY * 0.0015));
    });
    this.canvas.addEventListener("dblclick", () => { Object.assign(this, structuredClone(this.start)); this.draw(); });
    dragging(this.canvas, (x, y, event) => {
      if (event.shiftKey) {
        const step = this.distance / 700, cos = Math.cos(this.turn), sin = Math.sin(this.turn);
        this.target[0] += step * (y * cos - x * sin);
        this.target[1] += step * (y * sin + x * cos);
      } else {
        this.turn -= x * 0.006;
        this.tilt = clamp(this.tilt + y * 0.006, 0.02, Math.PI / 2);
      }
      this.draw();
    }, zoom);
  }

  repaint() {}

  draw() {
    const context = sized(this.canvas), width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    const ct = Math.cos(this.turn), st = Math.sin(this.turn), cp = Math.cos(this.tilt), sp = Math.sin(this.tilt);
    const eye = [this.target[0] - ct * cp * this.distance, this.target[1] - st * cp * this.distance, this.target[2] + sp * this.distance];
    const focal = 0.9 * Math.min(width, height);
    const toCamera = ([x, y, z]) => {
      const a = x - eye[0], b = y - eye[1], c = z - eye[2];
      const depth = a * ct * cp + b * st * cp - c * sp;
      return [width / 2 * depth + focal * (a * st - b * ct), height / 2 * depth - focal * (a * ct * sp + b * st * sp + c * cp), depth];
    };
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    const points = this.points;
    for (let at = 0; at < points.length; at += 3) {
      const [u, v, depth] = toCamera([points[at], points[at + 1], points[at + 2]]);
      if (depth < 0.2) continue;
      const up = clamp((points[at + 2] + 2.5) / 5, 0, 1);
      context.fillStyle = `hsl(${250 - 200 * up} 70% ${dark ? 62 : 42}%)`;
      context.fillRect(u / depth, v / depth, 1.6, 1.6);
    }
    context.strokeStyle = dark ? "#667" : "#99a";
    context.lineWidth = 1;
    context.beginPath();
    for (const end of [[CORNER, 0, 0], [0, CORNER, 0]]) {
      const line = projected([[0, 0, 0], end], toCamera);
      if (line) { context.moveTo(line[0], line[1]); context.lineTo(line[2], line[3]); }
    }
    context.stroke();
    const seen = this.boxes.filter(visible);
    for (const object of seen) {
      context.strokeStyle = colourOf(object.number);
      context.lineWidth = 2;
      context.beginPath();
      const trail = (object.trail ?? []).map(([x, y]) => [x, y, object.space[2] - object.space[5] / 2]);
      const edges = [...edgesOf(object.space), ...trail.slice(1).map((end, at) => [trail[at], end])];
      for (const edge of edges) {
        const line = projected(edge, toCamera);
        if (line) { context.moveTo(line[0], line[1]); context.lineTo(line[2], line[3]); }
      }
      context.stroke();
    }
    if (seen.length <= 80) for (const object of seen) {
      const [x, y, z, , , tall] = object.space, [u, v, depth] = toCamera([x, y, z + tall / 2]);
      if (depth > 0.2) label(context, object.text, u / depth, v / depth, object.number, this.canvas);
    }
    this.drawn = seen.length;
  }
}

/** Panes of what was found in space: the cameras, where there are some, and the space itself. */
async function spacePanes(item, record, scene) {
  const boxes = scene.boxes.map((entry) => ({
    number: numberOf(entry.label), score: entry.score ?? null, space: entry.box, trail: entry.trail,
    text: [entry.id ?? entry.label, entry.score == null ? "" : entry.score.toFixed(2), entry.status ?? ""].filter(Boolean).join(" "),
  }));
  const space = new SpacePane({ title: `space; the corner at the sensor is ${CORNER} m long`, points: hundredths(scene.points ?? ""), boxes, forward: scene.forward });
  if (!scene.cameras) return [space];
  const image = item.flags & VIEW ? await picture(`page/${item.key}.view.jpg`) : null;
  const objects = scene.cameras.flatMap((camera) => boxes.map((box) => {
    const m = camera.matrix;
    const toCamera = ([x, y, z]) => [0, 4, 8].map((row) => m[row] * x + m[row + 1] * y + m[row + 2] * z + m[row + 3]);
    const lines = edgesOf(box.space).map((edge) => projected(edge, toCamera)).filter((line) => line);
    return { number: box.number, score: box.score, lines, clip: camera.at };
  }).filter((object) => object.lines.length));
  const [width, height] = scene.size;
  return [new FlatPane({ title: "cameras", image, width, height, objects, map: null, camera: newCamera() }), space];
}
