// A person detector: a `.tflite` file with boxes as shares of the input's sides, as keras_mrpose.predict.detectors has it.

import {overlap} from './people.js';

/** The source pixels of each target pixel along one axis, with weights: means where it shrinks, else linear. */
function shares(from, to, shrinks) {
  return Array.from({length: to}, (_, i) => {
    if (!shrinks) {
      const at = Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1);
      const first = Math.min(Math.floor(at), Math.max(from - 2, 0));
      return [first, from > 1 ? [1 - (at - first), at - first] : [1]];
    }
    const [start, end] = [(i * from) / to, ((i + 1) * from) / to];
    const first = Math.floor(start);
    const last = Math.min(Math.ceil(end - 1e-9), from);
    const weights = [];
    for (let at = first; at < last; at++) weights.push((Math.min(at + 1, end) - Math.max(at, start)) / (end - start));
    return [first, weights];
  });
}

/** An image scaled to fit [height, width], at its upper left, black elsewhere: pixels, and the scales of x and y. */
export function letterbox(image, [height, width]) {
  const scale = Math.min(height / image.height, width / image.width);
  const [rows, columns] = [image.height, image.width].map((side) => Math.max(1, Math.round(side * scale)));
  const shrinks = rows * columns < image.width * image.height;
  const across = shares(image.width, columns, shrinks);
  const down = shares(image.height, rows, shrinks);
  const narrow = new Float32Array(image.height * columns * 3); // first the rows, then the columns
  for (let y = 0, out = 0; y < image.height; y++) {
    for (const [first, weights] of across) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        let at = 4 * (y * image.width + first) + channel;
        for (let k = 0; k < weights.length; k++, at += 4) sum += weights[k] * image.data[at];
        narrow[out++] = sum;
      }
    }
  }
  const pixels = new Float32Array(height * width * 3);
  const line = 3 * columns;
  for (const [y, [first, weights]] of down.entries()) {
    for (let i = 0; i < line; i++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * narrow[(first + k) * line + i];
      pixels[3 * y * width + i] = Math.round(sum);
    }
  }
  return {pixels, scale: [columns / image.width, rows / image.height]};
}

export class Detector {
  /**
   * @param network `Network` of the file
   * @param about of page.json: person_class, range, thresholds
   */
  constructor(network, about) {
    Object.assign(this, {network, about});
  }

  /** Boxes of people, the likeliest first, and their scores 0..1. */
  async find(image) {
    const [, height, width] = this.network.about.input.shape;
    const {pixels, scale} = letterbox(image, [height, width]);
    const outputs = await this.network.runAll(this.input(pixels));
    const {boxes, scores, classes} = this.roles(outputs);
    const columns = scores.length / (boxes.length / 4); // of scores: one, or one for each class
    const found = [];
    for (let row = 0; row < boxes.length / 4; row++) {
      const score = scores[row * columns + (columns > 1 ? this.about.person_class : 0)];
      if (score < this.about.score_threshold) continue;
      if (classes && Math.round(classes[row]) !== this.about.person_class) continue;
      const [top, left, bottom, right] = boxes.subarray(4 * row, 4 * row + 4);
      const box = cut([(left * width) / scale[0], (top * height) / scale[1]],
        [(right * width) / scale[0], (bottom * height) / scale[1]], image);
      if (box) found.push({box, score: Math.min(Math.max(score, 0), 1)});
    }
    found.sort((a, b) => b.score - a.score);
    const kept = [];
    for (const one of found) {
      if (kept.every((other) => overlap(one.box, other.box) <= this.about.nms_threshold)) kept.push(one);
    }
    return {boxes: kept.map((one) => one.box), scores: kept.map((one) => one.score)};
  }

  /** Which of the outputs are which. Classes are whole numbers; of two lists of whole numbers, scores do not exceed 1. */
  roles(outputs) {
    const row = this.network.outputs.findIndex(({shape}) => shape.length === 3 && shape[2] === 4);
    const boxes = outputs[row];
    const others = outputs.filter((output) => output !== boxes);
    if (others.length === 1) return {boxes, scores: others[0], classes: null};
    const whole = (list) => list.every((value) => value === Math.round(value));
    const [scores, classes] = others
      .filter((list, i) => list.length === boxes.length / 4 && this.network.outputs.filter((_, j) => j !== row)[i].shape.length > 1)
      .sort((a, b) => whole(a) - whole(b) || Math.max(...a) - Math.max(...b));
    return {boxes, scores, classes};
  }

  /** Pixels in the file's own type: quantised inputs take the grey levels themselves, int8 counts from -128. */
  input(pixels) {
    const {type} = this.network.about.input;
    if (type === 'uint8') return Uint8Array.from(pixels);
    if (type === 'int8') return Int8Array.from(pixels, (value) => value - 128);
    const [low, high] = this.about.range;
    return pixels.map((value) => value * ((high - low) / 255) + low);
  }
}

/** A box of its corners, cut at the image's border; null if less than two pixels of it are inside. */
function cut(low, high, image) {
  const within = (value, side) => Math.min(Math.max(value, 0), side);
  const [left, right] = [low[0], high[0]].map((value) => within(value, image.width));
  const [top, bottom] = [low[1], high[1]].map((value) => within(value, image.height));
  return right - left >= 2 && bottom - top >= 2 ? [left, top, right - left, bottom - top] : null;
}
