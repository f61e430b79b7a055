const $ = (id) => document.getElementById(id);

/** An element with properties and children. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A path as a URL: each part is encoded once. Bytes of a name that are no text came as U+DC80 to U+DCFF. */
function urlOf(path) {
  const encoded = (letter) => {
    const code = letter.codePointAt(0);
    return code >= 0xdc80 && code <= 0xdcff ? "%" + (code - 0xdc00).toString(16).toUpperCase() : encodeURIComponent(letter);
  };
  return path.split("/").map((part) => Array.from(part, encoded).join("")).join("/");
}

/** What an address stands for; null where it is not encoded as it should be. */
function decoded(address) {
  try {
    return decodeURIComponent(address);
  } catch {
    return null;
  }
}

/** A name as text that can be shown. */
const shownName = (name) => name.replace(/\p{Surrogate}/gu, "\ufffd");

const colourOf = (number, alpha = 1) => {
  const [red, green, blue] = facts.colours[number] ?? [128, 128, 128];
  return `rgb(${red} ${green} ${blue} / ${alpha})`;
};

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Loads a script once; the promise fails where there is no such file. */
function load(path) {
  return new Promise((done, failed) => {
    const script = make("script", { src: path });
    script.onload = () => { script.remove(); done(); };
    script.onerror = () => { script.remove(); failed(new Error(`${path} is missing`)); };
    document.head.append(script);
  });
}

/** A picture, decoded; null where there is none. */
async function picture(source) {
  const image = new Image();
  image.src = source;
  try {
    await image.decode();
    return image;
  } catch {
    return null;
  }
}
