"use strict";
/* exported remaining */

/* How many wrong labels are left. The steps are those of remaining.py, whose docstring explains them; a test compares
   the numbers. */

const BINS = 4;
const FIT = 0.5;
const Z = 1.959963984540054; // of a level of 0.95

const sum = (values) => values.reduce((total, value) => total + value, 0);
const chanceOf = (z) => 1 / (1 + Math.exp(-Math.min(Math.max(z, -700), 700)));

/* The first place in ascending values at which one is not below (or, with `after`, is above) what is looked for. */
function searchSorted(values, wanted, after = false) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < wanted || (after && values[middle] === wanted)) low = middle + 1;
    else high = middle;
  }
  return low;
}

const ranked = new WeakMap(); // of difficulties, which stay what they are

/* Step 1: places in falling order of difficulty, the rank of each, and where those of the same difficulty end. */
function rankOf(difficulty) {
  if (ranked.has(difficulty)) return ranked.get(difficulty);
  const order = [];
  difficulty.forEach((value, place) => Number.isNaN(value) || order.push(place));
  order.sort((a, b) => difficulty[b] - difficulty[a] || a - b);
  const rank = new Float64Array(order.length);
  const end = new Int32Array(order.length);
  for (let start = 0; start < order.length; ) {
    let stop = start + 1;
    while (stop < order.length && difficulty[order[stop]] === difficulty[order[start]]) stop += 1;
    rank.fill(start + (stop - start) / 2, start, stop);
    end.fill(stop, start, stop);
    start = stop;
  }
  const at = new Int32Array(difficulty.length).fill(-1);
  order.forEach((place, position) => (at[place] = position));
  const found = { rank, end, at };
  ranked.set(difficulty, found);
  return found;
}

/* Step 2: how many examples are the top. */
function endOfTop(end, decided) {
  let [lead, best, found] = [0, 0, 0];
  for (let position = 0; position < end.length; position += 1) {
    lead += decided[position] ? 1 : -1;
    if (position + 1 === end[position] && lead > best) [best, found] = [lead, position + 1];
  }
  return found;
}

/* Step 4. */
function fitCurve(x, wrong) {
  const goodness = (a, b) => {
    const fit = sum(x.map((one, k) => {
      const z = a - b * one;
      return wrong[k] * z - (Math.max(0, z) + Math.log1p(Math.exp(-Math.abs(z))));
    }));
    return fit - (a * a) / 200 - (b - 1) ** 2 / 2;
  };
  let [a, b] = [0, 1];
  let best = goodness(a, b);
  for (let step = 0; step < 100; step += 1) {
    let [slopeA, slopeB, aa, ab, bb] = [-a / 100, -(b - 1), 0.01, 0, 1];
    x.forEach((one, k) => {
      const p = chanceOf(a - b * one);
      const v = p * (1 - p);
      slopeA += wrong[k] - p;
      slopeB += one * (p - wrong[k]);
      aa += v;
      ab -= one * v;
      bb += one * one * v;
    });
    const stepA = (bb * slopeA - ab * slopeB) / (aa * bb - ab * ab);
    const stepB = (aa * slopeB - ab * slopeA) / (aa * bb - ab * ab);
    let part = 1;
    const least = best - 1e-10 * (1 + Math.abs(best)); // less is rounding, which would end the steps too early
    while (part > 1e-9 && goodness(a + part * stepA, b + part * stepB) < least) part /= 2;
    a += part * stepA;
    b += part * stepB;
    best = goodness(a, b);
    if (Math.abs(stepA) + Math.abs(stepB) < 1e-10) break;
  }
  return b >= 0 ? [a, b] : [flat(sum(wrong), wrong.length), 0];
}

function flat(wrong, decisions) {
  let [low, high] = [-100 * decisions - 1, 100 * decisions + 1];
  for (let step = 0; step < 200; step += 1) {
    const a = (low + high) / 2;
    if (wrong - decisions * chanceOf(a) - a / 100 > 0) low = a;
    else high = a;
  }
  return (low + high) / 2;
}

/* Step 5. */
function binsOf(evidence) {
  const found = [];
  for (const inTop of [true, false]) {
    const part = evidence.filter((one) => one.inTop === inTop);
    const ranks = part.map((one) => one.rank).sort((a, b) => a - b);
    const bins = Array.from({ length: BINS }, () => []);
    for (const one of part) bins[Math.floor((BINS * searchSorted(ranks, one.rank)) / part.length)].push(one);
    for (const bin of bins.filter((one) => one.length)) {
      const own = bin.map((one) => one.rank);
      found.push({
        wrong: sum(bin.map((one) => one.wrong)),
        decisions: bin.length,
        hardest: own.reduce((a, b) => Math.min(a, b)),
        easiest: own.reduce((a, b) => Math.max(a, b)),
      });
    }
  }
  return found;
}

/* Steps 6 and 7; `left` are the ranks of the undecided, in order. */
function intervalOf(evidence, left) {
  const bins = binsOf(evidence);
  const above = bins.map((bin) => searchSorted(left, bin.hardest));
  const below = above.map((start, j) => (above[j + 1] ?? left.length) - start);
  const most = above[0] + endOf(bins.map((bin) => bin.wrong), bins.map((bin) => bin.decisions), below);
  const downTo = bins.map((bin) => searchSorted(left, bin.easiest, true));
  const harder = downTo.map((stop, j) => stop - (downTo[j - 1] ?? 0)).reverse();
  const right = bins.map((bin) => bin.decisions - bin.wrong).reverse();
  const mostRight = left.length - downTo.at(-1) + endOf(right, bins.map((bin) => bin.decisions).reverse(), harder);
  return [Math.max(0, left.length - mostRight), Math.min(left.length, most)];
}

function endOf(wrong, decisions, undecided) {
  wrong[wrong.length - 1] += 0.5;
  decisions[decisions.length - 1] += 0.5;
  const [estimate, largest, variance] = largestSum(wrong, decisions, undecided, (Z * Z) / 2 + FIT);
  return estimate + Math.sqrt((largest - estimate) ** 2 + Z * Z * variance);
}

function largestSum(wrong, decisions, undecided, drop) {
  const blocksFor = (weight) => {
    const blocks = [];
    wrong.forEach((_, j) => {
      let [w, k, m] = [wrong[j], decisions[j], undecided[j]];
      let p = chanceOfBlock(w, k, weight * m);
      while (blocks.length && blocks.at(-1).p <= p) {
        const before = blocks.pop();
        [w, k, m] = [w + before.w, k + before.k, m + before.m];
        p = chanceOfBlock(w, k, weight * m);
      }
      blocks.push({ w, k, m, p });
    });
    return blocks;
  };
  const best = blocksFor(0);
  const least = logLikelihood(best) - drop;
  let [low, high] = [-40, 40];
  for (let step = 0; step < 60; step += 1) {
    const middle = (low + high) / 2;
    if (logLikelihood(blocksFor(Math.exp(middle))) >= least) low = middle;
    else high = middle;
  }
  const widest = blocksFor(Math.exp(low));
  const total = (blocks) => sum(blocks.map(({ m, p }) => m * p));
  return [total(best), total(widest), sum(widest.map(({ m, p }) => m * p * (1 - p)))];
}

function chanceOfBlock(wrong, decisions, pull) {
  const d = decisions - pull;
  const root = Math.sqrt(d * d + 4 * pull * wrong);
  return Math.min(1, d > 0 ? (2 * wrong) / (d + root) : (root - d) / (2 * pull));
}

function logLikelihood(blocks) {
  let total = 0;
  for (const { w, k, p } of blocks) {
    if (w > 0) total += p > 0 ? w * Math.log(p) : -Infinity;
    if (k > w) total += p < 1 ? (k - w) * Math.log1p(-p) : -Infinity;
  }
  return total;
}

/* {value, interval, reached, next(examples)}; null where no decision tells about others.
   difficulty: of all examples; place, wrong, sampled: of those decided, as `index`, `wrong` and `sampled` in Python. */
function remaining(difficulty, place, wrong, sampled) {
  const { rank, end, at } = rankOf(difficulty);
  const size = rank.length;
  const decided = new Uint8Array(size);
  for (const one of place) if (at[one] >= 0) decided[at[one]] = 1;
  const left = rank.filter((_, position) => !decided[position]);
  if (!left.length) return { value: 0, interval: [0, 0], reached: true, next: () => 0 };
  const top = endOfTop(end, decided);
  const evidence = place
    .map((one, k) => ({ at: at[one], rank: rank[at[one]], wrong: wrong[k] ? 1 : 0, inTop: at[one] < top, random: sampled[k] }))
    .filter((one) => one.at >= 0 && (one.inTop || one.random));
  if (!evidence.length) return null;
  const [low, high] = intervalOf(evidence, left);
  const logit = (one) => Math.log(one / (size - one));
  const [a, b] = fitCurve(evidence.map((one) => logit(one.rank)), evidence.map((one) => one.wrong));
  let chance = left.map((one) => chanceOf(a - b * logit(one)));
  const total = sum(chance);
  if (total > high) chance = chance.map((p) => p * (high / total));
  else if (total < low) chance = chance.map((p) => 1 - (1 - p) * ((left.length - low) / (left.length - total)));
  return {
    value: Math.min(Math.max(sum(chance), low), high),
    interval: [low, high],
    reached: top === size || evidence.some((one) => !one.inTop),
    next: (examples) => sum(chance.slice(0, examples)),
  };
}
