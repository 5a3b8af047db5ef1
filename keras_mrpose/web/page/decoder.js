// From a box to a crop, from heatmaps to joints: decoder.py in JavaScript, function by function.
//
// Pixel i has its centre at coordinate i. Sizes are [height, width], points [x, y], boxes [x, y, w, h]. An image is an
// ImageData, or an object like it: width, height, and data with four bytes a pixel, red, green, blue first.

/** The matrix from image to crop pixels of a box, widened to the crop's aspect and padded: scale, and shifts of x, y. */
export function cropMatrix([x, y, w, h], [height, width], padding) {
  const scale = width / (padding * Math.max(w, (h * width) / height));
  return {scale, x: width / 2 - scale * (x + w / 2), y: height / 2 - scale * (y + h / 2)};
}

/** For each of `count` crop pixels along one axis: two neighbours in the image and their weights, 0 outside. */
function neighbours(count, scale, shift, side) {
  const places = new Int32Array(2 * count);
  const weights = new Float64Array(2 * count);
  for (let i = 0; i < count; i++) {
    const at = (i - shift) / scale;
    const first = Math.floor(at);
    for (const next of [0, 1]) {
      const place = first + next;
      const inside = place >= 0 && place < side;
      places[2 * i + next] = inside ? place : 0;
      weights[2 * i + next] = inside ? Math.abs(1 - next - (at - first)) : 0;
    }
  }
  return {places, weights};
}

/** The crop, Float32Array of height x width x 3, 0..255, of an image: bilinear, black outside. */
export function crop(image, matrix, [height, width]) {
  const across = neighbours(width, matrix.scale, matrix.x, image.width);
  const down = neighbours(height, matrix.scale, matrix.y, image.height);
  const {data} = image;
  const found = new Float32Array(height * width * 3);
  let out = 0;
  for (let row = 0; row < height; row++) {
    const upper = down.places[2 * row] * image.width;
    const lower = down.places[2 * row + 1] * image.width;
    const [above, below] = [down.weights[2 * row], down.weights[2 * row + 1]];
    for (let column = 0; column < width; column++) {
      const [left, right] = [across.places[2 * column], across.places[2 * column + 1]];
      const [before, after] = [across.weights[2 * column], across.weights[2 * column + 1]];
      const corners = [4 * (upper + left), 4 * (upper + right), 4 * (lower + left), 4 * (lower + right)];
      for (let channel = 0; channel < 3; channel++) {
        found[out++] =
          above * (before * data[corners[0] + channel] + after * data[corners[1] + channel]) +
          below * (before * data[corners[2] + channel] + after * data[corners[3] + channel]);
      }
    }
  }
  return found;
}

/** Column, row and value of the first highest cell of each map; `maps` has the shape [height, width, joints]. */
export function peaks(maps, [height, width, joints]) {
  const found = Array.from({length: joints}, () => ({x: 0, y: 0, value: -Infinity}));
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let joint = 0; joint < joints; joint++, i++) {
        if (maps[i] > found[joint].value) found[joint] = {x, y, value: maps[i]};
      }
    }
  }
  return found;
}

/** The peak, moved by a quarter cell towards the higher neighbour in x and in y, except near the border. */
function decodeGaussian(maps, shape, codec) {
  const [height, width, joints] = shape;
  const edge = codec.published_border ? 1 : 0;
  return peaks(maps, shape).map(({x, y, value}, joint) => {
    const m = (row, column) => maps[(row * width + column) * joints + joint];
    if (value <= 0) return [0, 0, value];
    if (!(edge < x && x < width - 1 && edge < y && y < height - 1)) return [x, y, value];
    return [
      x + 0.25 * Math.sign(m(y, x + 1) - m(y, x - 1)),
      y + 0.25 * Math.sign(m(y + 1, x) - m(y - 1, x)),
      value,
    ];
  });
}

/** The summit of the parabola through the log of the smoothed map around the peak, at most one cell away (DARK). */
function decodeUnbiased(maps, shape, codec) {
  const [height, width, joints] = shape;
  const radius = Math.ceil(3 * codec.sigma);
  const side = 2 * radius + 1;
  const kernel = Float64Array.from({length: side}, (_, i) => Math.exp(-((i - radius) ** 2) / (2 * codec.sigma ** 2)));
  const total = kernel.reduce((sum, value) => sum + value);
  return peaks(maps, shape).map(({x, y, value}, joint) => {
    if (value <= 0) return [0, 0, value];
    if (!(1 < x && x < width - 2 && 1 < y && y < height - 2)) return [x, y, value];
    // The 5 x 5 cells around the peak, smoothed: first along the rows, then along the columns; 0 outside the map.
    const rows = [];
    for (let row = y - radius - 2; row <= y + radius + 2; row++) {
      const smoothed = [0, 0, 0, 0, 0];
      for (let i = 0; i < 5 && row >= 0 && row < height; i++) {
        for (let k = 0; k < side; k++) {
          const column = x - 2 + i + k - radius;
          if (column >= 0 && column < width) {
            smoothed[i] += (kernel[k] / total) * maps[(row * width + column) * joints + joint];
          }
        }
      }
      rows.push(smoothed);
    }
    const m = [0, 1, 2, 3, 4].map((i) =>
      [0, 1, 2, 3, 4].map((j) => {
        let sum = 0;
        for (let k = 0; k < side; k++) sum += (kernel[k] / total) * rows[i + k][j];
        return Math.log(Math.max(sum, 1e-10));
      }),
    );
    const [dx, dy] = [(m[2][3] - m[2][1]) / 2, (m[3][2] - m[1][2]) / 2];
    const [dxx, dyy] = [(m[2][4] - 2 * m[2][2] + m[2][0]) / 4, (m[4][2] - 2 * m[2][2] + m[0][2]) / 4];
    const dxy = (m[3][3] - m[1][3] - m[3][1] + m[1][1]) / 4;
    const det = dxx * dyy - dxy * dxy;
    if (!(dxx < 0 && det > 0)) return [x, y, value];
    const within = (step) => Math.min(Math.max(step, -1), 1);
    return [x + within((dxy * dy - dyy * dx) / det), y + within((dxy * dx - dxx * dy) / det), value];
  });
}

export const DECODERS = {gaussian: decodeGaussian, dark: decodeUnbiased, udp: decodeUnbiased};

/** Joints [x, y, height of the peak] in crop pixels, of heatmaps. */
export function decode(maps, shape, codec) {
  return DECODERS[codec.name](maps, shape, codec).map(([x, y, value]) => [
    x / codec.scale[0],
    y / codec.scale[1],
    value,
  ]);
}

/** Joints [x, y, score] from crop to image pixels; with a calibration the score is a probability. */
export function toImage(joints, matrix, calibration) {
  return joints.map(([x, y, value]) => [
    (x - matrix.x) / matrix.scale,
    (y - matrix.y) / matrix.scale,
    calibration ? interpolate(value, calibration) : value,
  ]);
}

/** A probability, linear between the knots of a calibration and constant beyond them. */
export function interpolate(value, {scores, probabilities}) {
  const last = scores.length - 1;
  if (value <= scores[0]) return probabilities[0];
  if (value >= scores[last]) return probabilities[last];
  const next = scores.findIndex((score) => score > value);
  const share = (value - scores[next - 1]) / (scores[next] - scores[next - 1]);
  return probabilities[next - 1] + share * (probabilities[next] - probabilities[next - 1]);
}

/** Probability that a person is in the crop, by the mean height of the peaks. */
export function person(heights, fitted) {
  return interpolate(heights.reduce((sum, height) => sum + height, 0) / heights.length, fitted);
}
