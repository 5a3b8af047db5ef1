// Who is in an image: one person by looking closer and closer, several by a detector; from frame to frame by last boxes.
//
// The rules and their numbers are those of keras_mrpose.predict; the numbers come from page.json (`search`).

import {crop, cropMatrix, decode, person, toImage} from './decoder.js';

/** The box around the likely joints, cut at the image's border; null if those are too few. */
export function boxOf(joints, {width, height}, threshold, search) {
  const likely = joints.filter((joint) => joint[2] >= threshold);
  if (likely.length < search.min_joints) return null;
  const ends = [0, 1].map((axis) => {
    const values = likely.map((joint) => joint[axis]);
    return [Math.min(...values), Math.max(...values)];
  });
  const longest = Math.max(...ends.map(([low, high]) => high - low));
  const [[left, right], [top, bottom]] = ends.map(([low, high], axis) => {
    const margin = search.margin * Math.max(high - low, longest / 4); // arms and legs in one line have a width, too
    const side = axis ? height : width;
    const start = Math.min(Math.max(low - margin, 0), side - 1);
    return [start, Math.min(Math.max(high + margin, start + 1), side)];
  });
  return [left, top, right - left, bottom - top];
}

/** Intersection over union of two boxes. */
export function overlap(a, b) {
  const side = (axis) => Math.min(a[axis] + a[axis + 2], b[axis] + b[axis + 2]) - Math.max(a[axis], b[axis]);
  const both = Math.max(side(0), 0) * Math.max(side(1), 0);
  return both / Math.max(a[2] * a[3] + b[2] * b[3] - both, 1e-12);
}

/** People, the likeliest first, without those who are found twice: whose joints are alike (OKS). */
export function distinct(people, sigmas, limit) {
  const kept = [];
  for (const one of [...people].sort((a, b) => b.score - a.score)) {
    const twice = kept.some((other) => {
      const area = (one.box[2] * one.box[3] + other.box[2] * other.box[3]) / 2;
      const likeness = one.joints.map(([x, y], joint) => {
        const distance = (x - other.joints[joint][0]) ** 2 + (y - other.joints[joint][1]) ** 2;
        return Math.exp(-distance / Math.max(2 * (2 * sigmas[joint]) ** 2 * area, 1e-12));
      });
      return likeness.reduce((sum, value) => sum + value) / likeness.length > limit;
    });
    if (!twice) kept.push(one);
  }
  return kept;
}

/** Finds people with one network, and a detector if there is one. */
export class PeopleFinder {
  /**
   * @param about content of model.json
   * @param page content of page.json
   * @param network `Network` of heatmaps or keypoints
   * @param detector `Detector`, or null: then there is one person
   */
  constructor(about, page, network, detector = null) {
    Object.assign(this, {about, search: page.search, personMap: page.person, network, detector});
    this.reset();
  }

  /** Forget the last frame. */
  reset() {
    this.last = [];
    this.frames = 0;
  }

  /** What the network makes of a crop: joints [x, y, height of the peak] in crop pixels. */
  async jointsOf(pixels) {
    const found = await this.network.run(pixels);
    const joints = this.about.skeleton.joints.length;
    if (this.network.about.output === 'heatmaps') {
      return decode(found, [...this.about.heatmaps.size, joints], this.about.codec);
    }
    return Array.from({length: joints}, (_, joint) => [...found.subarray(3 * joint, 3 * joint + 3)]);
  }

  /** One person for each box: joints [x, y, probability] in image pixels, box, score; `scores` are a detector's. */
  async inBoxes(image, boxes, scores = null) {
    const people = [];
    for (const [row, box] of boxes.entries()) {
      const matrix = cropMatrix(box, this.about.input.size, this.about.crop.padding);
      const joints = await this.jointsOf(crop(image, matrix, this.about.input.size));
      let score = person(joints.map((joint) => joint[2]), this.personMap);
      if (scores) {
        // the detector's probability and the heatmaps', as if they were independent
        const both = score * scores[row];
        score = both / Math.max(both + (1 - score) * (1 - scores[row]), 1e-12);
      }
      people.push({joints: toImage(joints, matrix, this.about.calibration), box, score});
    }
    return people;
  }

  above(people) {
    return people.filter((one) => one.score >= this.search.person_threshold);
  }

  /** The people of a photo. */
  async find(image) {
    if (!this.detector) return this.closerAndCloser(image);
    const {boxes, scores} = await this.detector.find(image);
    return this.different(this.above(await this.inBoxes(image, boxes, scores)));
  }

  different(people) {
    return distinct(people, this.about.skeleton.sigmas, this.search.same_person);
  }

  /** The one person of an image: in all of it, then around what was found, until that stays. */
  async closerAndCloser(image) {
    let box = [0, 0, image.width, image.height];
    let [pose] = await this.inBoxes(image, [box]);
    let best = pose;
    for (let pass = 1; pass < this.search.passes; pass++) {
      const highest = Math.max(...pose.joints.map((joint) => joint[2]));
      const closer = boxOf(pose.joints, image, Math.min(this.search.joint_threshold, highest / 2), this.search);
      if (!closer || overlap(box, closer) >= this.search.settled) break;
      box = closer;
      [pose] = await this.inBoxes(image, [box]);
      if (pose.score >= best.score) best = pose;
    }
    return this.above([best]);
  }

  /** The people of the next frame of a video: around those of the last frame, and looked for now and then. */
  async follow(image) {
    const boxes = this.last.map((one) => boxOf(one.joints, image, this.search.joint_threshold, this.search));
    const known = boxes.filter((box) => box !== null);
    let people;
    if (!known.length) {
      people = await this.find(image);
    } else if (this.detector && this.frames % this.search.every === 0) {
      people = await this.find(image);
      const missed = known.filter((box) => people.every((one) => overlap(box, one.box) < this.search.same_box));
      people = [...people, ...this.above(await this.inBoxes(image, missed))];
    } else {
      people = this.above(await this.inBoxes(image, known));
    }
    this.frames += 1;
    this.last = this.different(people);
    return this.last;
  }
}

