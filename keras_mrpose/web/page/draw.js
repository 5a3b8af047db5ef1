// Skeletons on a canvas: left orange, right blue, middle white, which people of every colour vision can tell apart.

export const COLOURS = {left: '#e69f00', right: '#56b4e9', middle: '#fafafa'};
const PEOPLE = ['#e69f00', '#56b4e9', '#009e73', '#cc79a7', '#f0e442', '#0072b2', '#d55e00', '#fafafa'];
const OUTLINE = '#191919';

/** Draw people; several have a colour each. Joints and edges of a lower probability than `threshold` are dashed. */
export function drawPeople(context, people, page, edges, threshold, boxes = false) {
  people.forEach((one, row) => drawPerson(context, one, page.sides, edges, threshold, people.length > 1 ? row : null));
  if (boxes) people.forEach((one, row) => drawBox(context, one.box, people.length > 1 ? row : null));
}

function drawPerson(context, {joints}, sides, edges, threshold, number) {
  const colourOf = (...ends) => {
    if (number !== null) return PEOPLE[number % PEOPLE.length];
    const [left, right] = ['left', 'right'].map((side) => ends.some((end) => sides[end] === side));
    return COLOURS[left === right ? 'middle' : left ? 'left' : 'right'];
  };
  const [xs, ys] = [0, 1].map((axis) => joints.map((joint) => joint[axis]));
  const extent = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys));
  const {width, height} = context.canvas;
  const radius = Math.min(Math.max(extent / 55, 2), Math.max(2, Math.max(width, height) / 80));
  const sure = joints.map((joint) => joint[2] >= threshold);
  context.lineCap = 'round';
  for (const solid of [false, true]) {
    for (const [a, b] of edges) {
      if ((sure[a] && sure[b]) !== solid) continue;
      context.setLineDash(solid ? [] : [2 * radius, 2 * radius]);
      for (const [colour, thick] of [[OUTLINE, 0.8 * radius], [colourOf(a, b), 0]]) {
        context.strokeStyle = colour;
        context.lineWidth = (solid ? 0.9 : 0.5) * radius + thick;
        context.beginPath();
        context.moveTo(joints[a][0] + 0.5, joints[a][1] + 0.5); // a canvas has pixel i's centre at i + 0.5
        context.lineTo(joints[b][0] + 0.5, joints[b][1] + 0.5);
        context.stroke();
      }
    }
  }
  context.setLineDash([]);
  joints.forEach(([x, y], joint) => {
    context.beginPath();
    context.arc(x + 0.5, y + 0.5, radius, 0, 2 * Math.PI);
    context.lineWidth = radius / 2.5;
    context.strokeStyle = sure[joint] ? OUTLINE : colourOf(joint);
    context.stroke();
    if (!sure[joint]) return;
    context.fillStyle = colourOf(joint);
    context.fill();
  });
}

function drawBox(context, [x, y, w, h], number) {
  context.strokeStyle = number === null ? COLOURS.middle : PEOPLE[number % PEOPLE.length];
  context.lineWidth = Math.max(1, context.canvas.width / 400);
  context.strokeRect(x + 0.5, y + 0.5, w, h);
}
