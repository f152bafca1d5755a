// Greedy non-maximum suppression, by the rule of ssd_lightning/ops/nms.py.

/**
 * The best box removes those of its class that overlap it more than the threshold, then the best of the others does,
 * and so on. A box without area overlaps nothing.
 *
 * @param {{boxes: number[][], labels: number[]}} candidates boxes as [x1, y1, x2, y2], best first
 * @param {number} iouThreshold the largest overlap that is not yet too much
 * @param {boolean} class_agnostic boxes of different classes remove each other too
 * @returns {number[]} places of the boxes that are left, best first
 */
export function nms({ boxes, labels }, iouThreshold, class_agnostic = false) {
  const keptOfGroup = new Map();
  const kept = [];
  boxes.forEach((box, place) => {
    const group = class_agnostic ? 0 : labels[place];
    if (!keptOfGroup.has(group)) keptOfGroup.set(group, []);
    const better = keptOfGroup.get(group);
    if (better.some((other) => overlap(other, box) > iouThreshold)) return;
    better.push(box);
    kept.push(place);
  });
  return kept;
}

/** Intersection over union; NaN, which is more than no threshold, for two boxes without area. */
export function overlap(a, b) {
  const width = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]));
  const height = Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const common = width * height;
  return common / (area(a) + area(b) - common);
}

function area(box) {
  return (box[2] - box[0]) * (box[3] - box[1]);
}
