// The reference case: an image with what Python makes of it. The page shows whether it makes the same.

import {crop, cropMatrix, decode, person, toImage} from './decoder.js';

/** The arrays of reference.bin by name, as page.json describes them. */
export async function loadReference(page) {
  const response = await fetch(page.reference.file, {cache: 'no-cache'});
  if (!response.ok) throw new Error(`${page.reference.file}: ${response.status} ${response.statusText}`);
  const content = await response.arrayBuffer();
  const found = {};
  for (const [name, {type, offset, shape}] of Object.entries(page.reference.arrays)) {
    const length = shape.reduce((product, side) => product * side, 1);
    found[name] = {shape, values: new {float32: Float32Array, uint8: Uint8Array}[type](content, offset, length)};
  }
  const [height, width] = found.image.shape;
  const data = new Uint8ClampedArray(4 * height * width);
  for (let i = 0; i < height * width; i++) data.set(found.image.values.subarray(3 * i, 3 * i + 3), 4 * i);
  return {...found, image: {width, height, data}};
}

const largest = (a, b) => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);

/** Largest differences of crop (grey levels) and decoder (image pixels, probabilities) from Python's; no network runs. */
export function checkDecoder(about, page, reference) {
  const matrix = cropMatrix(page.reference.box, about.input.size, about.crop.padding);
  const cropOff = largest(crop(reference.image, matrix, about.input.size), reference.crop.values);
  let jointsOff = 0;
  if (reference.heatmaps) {
    const found = decode(reference.heatmaps.values, reference.heatmaps.shape, about.codec);
    const joints = toImage(found, matrix, about.calibration);
    jointsOff = Math.max(...joints.map((joint, row) => largest(joint, page.reference.joints[row])));
    if (page.reference.person !== null) {
      const score = person(found.map((joint) => joint[2]), about.calibration.person);
      jointsOff = Math.max(jointsOff, Math.abs(score - page.reference.person));
    }
  }
  return {cropOff, jointsOff, passed: cropOff < page.limits.crop && jointsOff < page.limits.joints};
}

/**
 * How far network and decoder here are from the same file in Python's interpreter, from image to joints.
 *
 * @returns the largest shift of likely joints in crop pixels, the largest difference of scores, and whether both will do
 */
export async function checkNetwork(finder, page, reference) {
  const [one] = await finder.inBoxes(reference.image, [page.reference.box]);
  const {scale} = cropMatrix(page.reference.box, finder.about.input.size, finder.about.crop.padding);
  const expected = finder.network.about.expected;
  let [shift, scores] = [0, Math.abs(one.score - expected.person)];
  for (const [row, [x, y, score]] of expected.joints.entries()) {
    scores = Math.max(scores, Math.abs(one.joints[row][2] - score));
    if (score >= finder.about.threshold) {
      shift = Math.max(shift, scale * Math.hypot(one.joints[row][0] - x, one.joints[row][1] - y));
    }
  }
  const limits = finder.network.about.limits[finder.network.accelerator];
  const passed = shift < limits.shift && scores < limits.scores; // false for NaN, too
  return {shift, scores, passed};
}
