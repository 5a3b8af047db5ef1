// LiteRT.js: the library, each of its files checked against its hash, and networks that it runs.

/** The bytes of one of the library's files; the browser refuses them if the hash is another. */
async function fetchChecked({url, integrity}) {
  const response = await fetch(url, {integrity, credentials: 'omit', referrerPolicy: 'no-referrer'});
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return response.arrayBuffer();
}

function blobUrl(content) {
  return URL.createObjectURL(new Blob([content], {type: 'text/javascript'}));
}

/**
 * Load LiteRT.js; its scripts run from the checked bytes, so that nothing unchecked can.
 *
 * On the processor with several threads where the page is isolated from other origins (`mrpose serve` sends the headers
 * for that); on the graphics by the one build that can leave single operations to the processor.
 *
 * @param library of page.json
 * @param accelerator 'wasm' (the processor) or 'webgpu' (the graphics)
 * @returns the library's module and the build: 'threaded', 'jspi', 'plain', or 'compat' for processors of few abilities
 */
export async function loadLibrary(library, accelerator) {
  const [index, utils] = await Promise.all([library.index, library.utils].map(fetchChecked));
  const source = new TextDecoder().decode(index).replace('"@litertjs/wasm-utils"', JSON.stringify(blobUrl(utils)));
  const litert = await import(blobUrl(source));
  const can = (feature) => litert.supportsFeature(feature);
  let variant = 'plain';
  if (!(await can('relaxedSimd'))) variant = 'compat';
  else if (accelerator === 'webgpu') variant = (await can('jspi')) ? 'jspi' : 'plain';
  else if (self.crossOriginIsolated && (await can('threads'))) variant = 'threaded';
  const [script, wasmBinary] = await Promise.all(['js', 'wasm'].map((kind) => fetchChecked(library[variant][kind])));
  const url = blobUrl(script);
  self.Module = {wasmBinary, mainScriptUrlOrBlob: url}; // where LiteRT.js looks before it fetches
  await litert.loadLiteRt(`${url}#${variant}.js`); // the ending says that it is a file and no folder of them
  return {litert, variant};
}

const ARRAYS = {float32: Float32Array, uint8: Uint8Array, int8: Int8Array, int32: Int32Array, int64: BigInt64Array};

/** Values of a tensor's own type from real ones; whole numbers as they are where it has no scale. */
export function quantized(values, {type, scale, zero}) {
  const found = new ARRAYS[type](values.length);
  if (type === 'float32') found.set(values);
  else {
    const [low, high] = type === 'uint8' ? [0, 255] : [-128, 127];
    for (let i = 0; i < values.length; i++) {
      found[i] = Math.min(Math.max(Math.round(values[i] / (scale || 1)) + zero, low), high);
    }
  }
  return found;
}

/** The real values, Float32Array, of a tensor. */
export function dequantized(values, {scale, zero}) {
  if (values instanceof Float32Array) return values;
  return Float32Array.from(values, (value) => (Number(value) - zero) * (scale || 1));
}

/** A `.tflite` file that runs. */
export class Network {
  /**
   * @param litert the library's module
   * @param about of the file in page.json: name, input and outputs with type, shape, scale and zero
   * @param accelerator 'wasm' or 'webgpu'; whether the whole file could go there says `accelerator` afterwards
   */
  static async load(litert, about, accelerator = 'wasm') {
    const response = await fetch(about.name, {cache: 'no-cache'});
    if (!response.ok) throw new Error(`${about.name}: ${response.status} ${response.statusText}`);
    const content = new Uint8Array(await response.arrayBuffer());
    return new Network(litert, about, await litert.loadAndCompile(content, {accelerator}));
  }

  constructor(litert, about, compiled) {
    Object.assign(this, {litert, about, compiled, accelerator: compiled.options.accelerator});
    // The library may have the outputs in another order than Python's interpreter.
    const left = [...about.outputs];
    this.outputs = compiled.getOutputDetails().map(({name, dtype, shape}) => {
      const row = left.findIndex((one) => one.type === dtype && one.shape.join() === shape.join());
      if (row < 0) throw new Error(`${about.name} has an output ${name} of ${dtype} ${shape}, which page.json does not know`);
      return left.splice(row, 1)[0];
    });
  }

  /** The first output's real values, Float32Array, of crop pixels 0..255. */
  async run(pixels) {
    return (await this.runAll(quantized(pixels, this.about.input)))[0];
  }

  /** All outputs' real values in the order of `outputs`, of an input in the file's own type. */
  async runAll(values) {
    const input = new this.litert.Tensor(values, this.about.input.shape);
    let outputs = [];
    try {
      outputs = await this.compiled.run([input]);
      const found = [];
      for (const [row, output] of outputs.entries()) {
        found.push(dequantized(await output.data(), this.outputs[row]));
      }
      return found;
    } finally {
      for (const tensor of [input, ...outputs]) tensor.delete(); // the library frees nothing itself
    }
  }

  delete() {
    this.compiled.delete();
  }
}
