// The page: camera or photos in, skeletons drawn, and whether the numbers are Python's.

import {checkDecoder, checkNetwork, loadReference} from './check.js';
import {Detector} from './detector.js';
import {drawPeople} from './draw.js';
import {Network, loadLibrary} from './network.js';
import {PeopleFinder} from './people.js';

const MAX_SIDE = 4096; // of a photo: phones have no larger canvases
const AVERAGED = 10; // frames
// The library has another build for each, and a page can hold one: a change loads the page again.
const ACCELERATOR = new URLSearchParams(location.search).get('on') === 'webgpu' && navigator.gpu ? 'webgpu' : 'wasm';

const at = (id) => document.getElementById(id);
/** What the page has done so far, to be looked at from a console or a test. */
export const state = {litert: null, variant: '', accelerator: '', checks: null, frames: 0, people: [], photos: []};

let about, page, reference, library, finder, detector;
let stream = null;
let facing = 'environment';
let busy = Promise.resolve(); // one run of the network after the other: camera, photos and a change of network

/** Do one thing after all that was asked for before. */
function inTurn(work) {
  busy = busy.catch(() => {}).then(work);
  return busy;
}

async function readJson(name) {
  const response = await fetch(name, {cache: 'no-cache'});
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return response.json();
}

function say(text) {
  at('message').textContent = text;
  at('message').hidden = !text;
}

function badge(text, kind = '') {
  at('badge').textContent = text;
  at('badge').className = `badge ${kind}`;
}

// --- start and settings ----------------------------------------------------------------------------------------------

async function start() {
  [about, page] = await Promise.all([readJson('model.json'), readJson('page.json')]);
  reference = await loadReference(page);
  for (const {name, label} of page.files) at('network').append(new Option(label, name));
  at('accelerator').options[1].disabled = !navigator.gpu;
  at('accelerator').value = ACCELERATOR;
  at('threshold').value = about.threshold;
  showThreshold();
  showCard();
  badge('loading LiteRT.js');
  library = await loadLibrary(page.library, ACCELERATOR);
  Object.assign(state, library);
  if (page.detector) detector = new Detector(await Network.load(library.litert, page.detector), page.detector);
  await useNetwork();
  at('camera').disabled = at('photos').disabled = false;
}

/** Load the network of the settings, check it, and say so. */
async function useNetwork() {
  badge('checking');
  const chosen = page.files.find((file) => file.name === at('network').value);
  let [network, refusal] = [null, ''];
  try {
    network = await Network.load(library.litert, chosen, ACCELERATOR);
    if (network.accelerator !== ACCELERATOR) refusal = 'it has operations that the graphics do not know';
  } catch (error) {
    if (ACCELERATOR === 'wasm') throw error;
    network = await Network.load(library.litert, chosen, 'wasm');
    refusal = error.message;
  }
  finder?.network.delete();
  finder = new PeopleFinder(about, page, network, detector);
  const decoder = checkDecoder(about, page, reference);
  const run = await checkNetwork(finder, page, reference);
  state.checks = {decoder, network: run};
  state.accelerator = network.accelerator;
  if (decoder.passed && run.passed) badge('same numbers as in Python', 'good');
  else badge(decoder.passed ? 'the network differs from Python' : 'crop or decoder differ from Python', 'bad');
  const threads = library.variant === 'threaded' ? 'several threads' : 'one thread';
  at('checked').textContent =
    `Compared with Python: crop ${decoder.cropOff.toFixed(3)} grey levels off, decoder ` +
    `${decoder.jointsOff.toFixed(5)} pixels, network ${run.shift.toFixed(4)} crop pixels and ` +
    `${run.scores.toFixed(5)} of confidence. It runs on the ` +
    `${network.accelerator === 'webgpu' ? 'graphics' : `processor with ${threads}`}.`;
  say(refusal && `${chosen.label} runs on the processor: ${refusal}.`);
}

function changeNetwork() {
  inTurn(useNetwork).catch((error) => {
    badge('not loaded', 'bad');
    say(`The network could not be loaded: ${error.message}`);
  });
}

function showThreshold() {
  at('threshold-value').value = Number(at('threshold').value).toFixed(2);
}

function showCard() {
  for (const [term, text] of page.card) {
    const [name, description] = [document.createElement('dt'), document.createElement('dd')];
    name.textContent = term;
    description.textContent = text;
    at('card').append(name, description);
  }
}

// --- results ---------------------------------------------------------------------------------------------------------

function draw(canvas, image, people) {
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext('2d');
  context.putImageData(image, 0, 0);
  drawPeople(context, people, page, about.skeleton.edges, Number(at('threshold').value), at('boxes').checked);
}

function describe(people, milliseconds) {
  const found = people.length === 0 ? 'nobody' : people.length === 1 ? 'one person' : `${people.length} people`;
  const scores = people.map((one) => `${Math.round(100 * one.score)} %`).join(', ');
  return `${found}${scores && ` (${scores})`}, ${milliseconds.toFixed(0)} ms`;
}

/** A bar for each joint of the first person. */
function showScores(people) {
  state.people = people;
  at('scores').hidden = !people.length;
  if (!people.length || !at('scores').open) return;
  const body = at('scores').querySelector('tbody');
  if (!body.rows.length) {
    for (const joint of about.skeleton.joints) {
      const row = body.insertRow();
      row.insertCell().textContent = joint.replaceAll('_', ' ');
      row.insertCell().append(document.createElement('meter'));
      row.insertCell();
    }
  }
  people[0].joints.forEach(([, , score], row) => {
    const cells = body.rows[row].cells;
    cells[1].firstChild.value = score;
    cells[1].firstChild.setAttribute('aria-label', about.skeleton.joints[row]);
    cells[2].textContent = score.toFixed(2);
  });
}

// --- photos ----------------------------------------------------------------------------------------------------------

/** The pixels of a photo file, upright, colours as they are in the file. */
async function readPhoto(file) {
  const bitmap = await createImageBitmap(file, {imageOrientation: 'from-image', colorSpaceConversion: 'none'});
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(scale * side)));
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

async function showPhoto(file) {
  const figure = document.createElement('figure');
  const [canvas, caption] = [document.createElement('canvas'), document.createElement('figcaption')];
  figure.append(canvas, caption);
  let image;
  try {
    image = await readPhoto(file);
  } catch {
    caption.textContent = `${file.name}: this browser cannot read it as an image.`;
    at('gallery').prepend(figure);
    return;
  }
  const begin = performance.now();
  const people = await finder.find(image);
  const milliseconds = performance.now() - begin;
  draw(canvas, image, people);
  canvas.setAttribute('role', 'img');
  caption.textContent = `${file.name}: ${describe(people, milliseconds)}`;
  canvas.setAttribute('aria-label', caption.textContent);
  at('gallery').prepend(figure);
  showScores(people);
  state.photos.push({name: file.name, file, canvas, people});
}

/** Draw all photos again, with other settings. */
function redraw() {
  for (const {name, file, canvas, people} of state.photos) {
    inTurn(async () => draw(canvas, await readPhoto(file), people)).catch((error) => say(`${name}: ${error.message}`));
  }
}

function addPhotos(files) {
  for (const file of files) inTurn(() => showPhoto(file)).catch((error) => say(`${file.name}: ${error.message}`));
}

// --- camera ----------------------------------------------------------------------------------------------------------

const REFUSED = {
  NotAllowedError: 'The browser refused the camera. Allow it for this page (the icon beside the address), and try again.',
  NotFoundError: 'There is no camera here. Photos work without.',
  NotReadableError: 'The camera is in use by another program.',
};

async function startCamera() {
  say('');
  if (!navigator.mediaDevices?.getUserMedia) {
    say(
      'Browsers give the camera to pages of https:// or http://localhost only. Serve this folder with a certificate, ' +
        'put it on a host with https, or forward the port (adb reverse tcp:8000 tcp:8000). Photos work anyway.',
    );
    return;
  }
  try {
    const wanted = {facingMode: facing, width: {ideal: 640}, height: {ideal: 480}};
    stream = await navigator.mediaDevices.getUserMedia({video: wanted, audio: false});
  } catch (error) {
    say(REFUSED[error.name] ?? `The camera cannot be opened: ${error.message}`);
    return;
  }
  const [track] = stream.getVideoTracks();
  at('live').classList.toggle('mirrored', track.getSettings().facingMode === 'user');
  at('camera').textContent = 'Stop camera';
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === 'videoinput');
  at('turn').hidden = cameras.length < 2;
  at('live').hidden = false;
  at('video').srcObject = stream;
  await at('video').play();
  finder.reset();
  runCamera(stream);
}

function stopCamera() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  at('video').srcObject = null;
  at('camera').textContent = 'Start camera';
  at('turn').hidden = at('live').hidden = true;
}

/** Frame after frame until the stream is another one. */
async function runCamera(mine) {
  const canvas = document.createElement('canvas');
  const context = canvas.getContext('2d', {willReadFrequently: true});
  const video = at('video');
  const times = [];
  while (stream === mine) {
    await new Promise(requestAnimationFrame);
    if (stream !== mine || video.readyState < video.HAVE_CURRENT_DATA) continue;
    try {
      await inTurn(async () => {
        const begin = performance.now();
        if (canvas.width !== video.videoWidth || canvas.height !== video.videoHeight) {
          [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
        }
        context.drawImage(video, 0, 0);
        const image = context.getImageData(0, 0, canvas.width, canvas.height);
        const people = await finder.follow(image);
        times.push(performance.now() - begin);
        if (times.length > AVERAGED) times.shift();
        if (stream !== mine) return;
        draw(at('stage'), image, people);
        state.frames += 1;
        const milliseconds = times.reduce((sum, time) => sum + time) / times.length;
        at('speed').textContent = `${describe(people, milliseconds)} a frame`;
        showScores(people);
      });
    } catch (error) {
      stopCamera();
      say(`The camera was stopped: ${error.message}`);
    }
  }
}

at('camera').addEventListener('click', () => (stream ? stopCamera() : startCamera()));
at('turn').addEventListener('click', () => {
  facing = facing === 'user' ? 'environment' : 'user';
  stopCamera();
  startCamera();
});
at('photos').addEventListener('change', () => {
  addPhotos(at('photos').files);
  at('photos').value = ''; // the same photo can be chosen again
});
document.addEventListener('dragover', (event) => event.preventDefault());
document.addEventListener('drop', (event) => {
  event.preventDefault();
  if (!at('photos').disabled) addPhotos(event.dataTransfer.files);
});
at('scores').addEventListener('toggle', () => showScores(state.people));
at('network').addEventListener('change', changeNetwork);
at('accelerator').addEventListener('change', () => {
  location.search = at('accelerator').value === 'webgpu' ? '?on=webgpu' : '';
});
at('threshold').addEventListener('input', showThreshold);
at('threshold').addEventListener('change', redraw);
at('boxes').addEventListener('change', redraw);

start().catch((error) => {
  badge('not loaded', 'bad');
  say(`The page could not start: ${error.message}`);
});
