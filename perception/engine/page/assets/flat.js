/** What the large view shows of what was found, in every item. */
const look = { hidden: new Set(), score: 0, opacity: 0.5 };
const visible = (object) => !look.hidden.has(object.number) && (object.score === null || object.score >= look.score);

/** Lengths of COCO's compressed runs, zeros first. */
function runLengths(text) {
  const lengths = [];
  for (let at = 0; at < text.length;) {
    let value = 0, place = 1, letter;
    do {
      letter = text.charCodeAt(at) - 48;
      value += (letter & 31) * place;
      place *= 32;
      at += 1;
    } while (letter & 32);
    if (letter & 16) value -= place;
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    lengths.push(value);
  }
  return lengths;
}

/** A mask as a picture in one colour, cut to its box and reduced where it is large: { canvas, box }. */
function maskPicture(code, bbox, number) {
  const [height, width] = code.size;
  const left = clamp(Math.floor(bbox[0]), 0, width), top = clamp(Math.floor(bbox[1]), 0, height);
  const right = clamp(Math.ceil(bbox[0] + bbox[2]), left, width), bottom = clamp(Math.ceil(bbox[1] + bbox[3]), top, height);
  if (right === left || bottom === top) return null;
  const step = Math.max(1, Math.ceil(Math.max(right - left, bottom - top) / 1024));
  const canvas = make("canvas", { width: Math.ceil((right - left) / step), height: Math.ceil((bottom - top) / step) });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  const [red, green, blue] = facts.colours[number] ?? [128, 128, 128];
  const colour = new Uint32Array(new Uint8ClampedArray([red, green, blue, 255]).buffer)[0];
  const target = new Uint32Array(pixels.data.buffer);
  let place = 0;
  runLengths(code.counts).forEach((length, index) => {
    const end = place + length;
    for (; index % 2 && place < end;) {
      const column = Math.floor(place / height), row = place - column * height;
      const until = Math.min(height, row + end - place);
      if (column >= left && column < right && (column - left) % step === 0) {
        const first = Math.ceil((Math.max(row, top) - top) / step), last = (Math.min(until, bottom) - top) / step;
        for (let y = first; y < last; y += 1) target[y * canvas.width + (column - left) / step] = colour;
      }
      place += until - row;
    }
    place = end;
  });
  context.putImageData(pixels, 0, 0);
  return { canvas, box: [left, top, canvas.width * step, canvas.height * step] };
}

/**
 * A map of indices, from the page's own data: `numbers` are the classes of its indices, null for none; with `shaded`,
 * neighbours of one class differ.
 */
async function indexMap(source, numbers, shaded) {
  const image = await picture(source);
  const canvas = make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const wide = numbers.length > 256;
  const index = new Uint16Array(canvas.width * canvas.height);
  for (let at = 0; at < index.length; at += 1) index[at] = pixels.data[4 * at] + (wide ? 256 * pixels.data[4 * at + 1] : 0);
  return {
    canvas,
    /** Colours what is not hidden. */
    paint() {
      const colours = numbers.map((number, at) => {
        if (number === null || look.hidden.has(number)) return 0;
        const shade = shaded ? [1, 0.7, 0.85, 0.55][at % 4] : 1;
        const [red, green, blue] = (facts.colours[number] ?? [128, 128, 128]).map((value) => value * shade);
        return new Uint32Array(new Uint8ClampedArray([red, green, blue, 255]).buffer)[0];
      });
      const target = new Uint32Array(pixels.data.buffer);
      for (let at = 0; at < index.length; at += 1) target[at] = colours[index[at]] ?? 0;
      context.putImageData(pixels, 0, 0);
    },
  };
}

/** Where an image lies in its pane, shared by panes that move together. */
const newCamera = () => ({ scale: 0, x: 0, y: 0, panes: [] });

/**
 * A pane with an image and what was found on it, to be zoomed by the wheel or two fingers and moved by dragging.
 * `objects` have `number` (of the class), `score`, and `box`, `ring`, `mask` or `lines`, in pixels of the image.
 */
class FlatPane {
  constructor({ title, image, width, height, objects, map, camera }) {
    Object.assign(this, { image, width, height, objects, map, camera });
    this.canvas = make("canvas");
    this.element = make("div", { className: "pane" }, this.canvas);
    if (title) this.element.append(make("span", { className: "caption", textContent: title }));
    camera.panes.push(this);
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * 0.0015), event.offsetX, event.offsetY);
    });
    this.canvas.addEventListener("dblclick", () => { camera.scale = 0; camera.panes.forEach((pane) => pane.draw()); });
    dragging(this.canvas, (x, y) => {
      camera.x += x; camera.y += y;
      camera.panes.forEach((pane) => pane.draw());
    }, (factor, x, y) => this.zoom(factor, x, y));
    this.repaint();
  }

  zoom(factor, x, y) {
    const camera = this.camera, scale = clamp(camera.scale * factor, this.fit() / 4, 64);
    camera.x = x - (x - camera.x) * scale / camera.scale;
    camera.y = y - (y - camera.y) * scale / camera.scale;
    camera.scale = scale;
    camera.panes.forEach((pane) => pane.draw());
  }

  fit() { return Math.min(this.canvas.clientWidth / this.width, this.canvas.clientHeight / this.height) || 1; }

  /** After a class was hidden or shown. */
  repaint() { this.map?.paint(); }

  draw() {
    const context = sized(this.canvas), camera = this.camera;
    if (!camera.scale) {
      camera.scale = this.fit();
      camera.x = (this.canvas.clientWidth - this.width * camera.scale) / 2;
      camera.y = (this.canvas.clientHeight - this.height * camera.scale) / 2;
    }
    const { scale, x, y } = camera;
    const put = (source, box) => context.drawImage(source, x + box[0] * scale, y + box[1] * scale, box[2] * scale, box[3] * scale);
    context.imageSmoothingEnabled = scale < 3;
    const whole = [0, 0, this.width, this.height];
    if (this.image) put(this.image, whole);
    else {
      context.fillStyle = "rgb(128 128 128 / 25%)";
      context.fillRect(x, y, this.width * scale, this.height * scale);
    }
    context.globalAlpha = look.opacity;
    context.imageSmoothingEnabled = false;
    if (this.map) put(this.map.canvas, whole);
    const seen = this.objects.filter(visible);
    for (const object of seen) {
      if (!object.mask) continue;
      object.picture ??= maskPicture(object.mask, object.box, object.number);
      if (object.picture) put(object.picture.canvas, object.picture.box);
    }
    context.globalAlpha = 1;
    const path = (object) => {
      context.beginPath();
      if (object.ring) object.ring.forEach(([px, py], at) => context[at ? "lineTo" : "moveTo"](x + px * scale, y + py * scale));
      else if (object.lines) for (const [x1, y1, x2, y2] of object.lines) { context.moveTo(x + x1 * scale, y + y1 * scale); context.lineTo(x + x2 * scale, y + y2 * scale); }
      else context.rect(x + object.box[0] * scale, y + object.box[1] * scale, object.box[2] * scale, object.box[3] * scale);
      if (object.ring) context.closePath();
    };
    const line = seen.length > 150 ? 1.2 : 2;
    for (const object of seen.toReversed()) {
      if (!object.box && !object.lines && !object.ring) continue;
      context.save();
      if (object.clip) { context.beginPath(); context.rect(x + object.clip[0] * scale, y + object.clip[1] * scale, object.clip[2] * scale, object.clip[3] * scale); context.clip(); }
      path(object);
      context.strokeStyle = "rgb(0 0 0 / 45%)"; context.lineWidth = line + 2; context.stroke();
      context.strokeStyle = colourOf(object.number); context.lineWidth = line; context.stroke();
      context.restore();
    }
    if (seen.length <= 80) for (const object of seen.toReversed()) if (object.text && object.box) {
      label(context, object.text, x + object.box[0] * scale, y + object.box[1] * scale, object.number, this.canvas);
    }
    this.drawn = seen.length;
  }
}

/** Words on the colour of a class, inside of the canvas. */
function label(context, text, x, y, number, canvas) {
  context.font = "12px system-ui, sans-serif";
  const width = context.measureText(text).width + 8;
  const left = clamp(x, 0, Math.max(0, canvas.clientWidth - width)), top = clamp(y - 17, 0, Math.max(0, canvas.clientHeight - 17));
  context.fillStyle = colourOf(number, 0.88);
  context.fillRect(left, top, width, 17);
  const [red, green, blue] = facts.colours[number] ?? [128, 128, 128];
  context.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000" : "#fff";
  context.fillText(text, left + 4, top + 12.5);
}

/** A canvas's context in CSS pixels, cleared, at the screen's resolution. */
function sized(canvas) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/** Calls `moved` with the steps of a pointer that is dragged; of two fingers `pinched`, too, with a factor and where. */
function dragging(canvas, moved, pinched) {
  const held = new Map(); // pointer -> place
  const seen = () => {
    const [one, other = one] = held.values();
    return { x: (one[0] + other[0]) / 2, y: (one[1] + other[1]) / 2, apart: Math.hypot(one[0] - other[0], one[1] - other[1]) };
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (held.size === 2) return;
    held.set(event.pointerId, [event.clientX, event.clientY]);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held.has(event.pointerId)) return;
    const before = seen();
    held.set(event.pointerId, [event.clientX, event.clientY]);
    const now = seen(), corner = canvas.getBoundingClientRect();
    moved(now.x - before.x, now.y - before.y, event);
    if (before.apart && now.apart) pinched(now.apart / before.apart, now.x - corner.left, now.y - corner.top);
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => held.delete(event.pointerId));
}

const numberOf = (name) => classIndex.get(name) ?? -1;

/** Detections and segments of a record as objects. */
function objectsOf(entries) {
  return (entries ?? []).map((entry) => {
    const object = { number: numberOf(entry.label), score: entry.score ?? null, box: entry.bbox };
    object.text = entry.score === undefined ? entry.label : `${entry.label} ${entry.score.toFixed(2)}`;
    const outline = entry.segmentation;
    if (Array.isArray(outline)) {
      const corners = outline[0];
      object.ring = corners.filter((_, at) => at % 2 === 0).map((value, at) => [value, corners[2 * at + 1]]);
    } else if (outline) object.mask = outline;
    return object;
  });
}

/** Panes of an image: what was found, and what is true beside it where that is known. */
async function flatPanes(item, record, scene) {
  const image = item.flags & VIEW ? await picture(`page/${item.key}.view.jpg`) : null;
  const width = record.width ?? image?.naturalWidth ?? 1, height = record.height ?? image?.naturalHeight ?? 1;
  const camera = newCamera();
  const pane = async (title, entries, index) => {
    const map = index ? await indexMap(index, scene.numbers ?? facts.classes.map((_, at) => at), Boolean(scene.numbers)) : null;
    return new FlatPane({ title, image, width, height, objects: objectsOf(entries), map, camera });
  };
  if (record.truth === undefined) return [await pane("", record.detections ?? (scene?.index ? [] : record.segments), scene?.index)];
  return [await pane("truth", record.truth, scene?.truth), await pane("prediction", record.detections, scene?.index)];
}
