/** What a heap keeps: it knows its place, so that it can be taken out from the middle. */
export interface Placed {
  place: number; // of the heap only
}

/** A binary heap: the one that comes before all others is first. */
export class Heap<T extends Placed> {
  readonly #items: T[] = [];

  constructor(private readonly before: (a: T, b: T) => boolean) {}

  get size(): number {
    return this.#items.length;
  }

  get first(): T | undefined {
    return this.#items[0];
  }

  push(item: T): void {
    this.#items.push(item);
    this.#up(item, this.#items.length - 1);
  }

  /** Takes an item out. One that is not in it is left alone. */
  remove(item: T): void {
    const i = item.place;
    if (this.#items[i] !== item) return;
    const last = this.#items.pop()!;
    if (last === item) return;
    this.#up(last, i);
    this.#down(last, last.place);
  }

  #up(item: T, i: number): void {
    while (i > 0) {
      const up = (i - 1) >> 1;
      if (!this.before(item, this.#items[up]!)) break;
      this.#set(this.#items[up]!, i);
      i = up;
    }
    this.#set(item, i);
  }

  #down(item: T, i: number): void {
    for (;;) {
      let down = 2 * i + 1;
      if (down >= this.#items.length) break;
      if (down + 1 < this.#items.length && this.before(this.#items[down + 1]!, this.#items[down]!)) down++;
      if (!this.before(this.#items[down]!, item)) break;
      this.#set(this.#items[down]!, i);
      i = down;
    }
    this.#set(item, i);
  }

  #set(item: T, i: number): void {
    this.#items[i] = item;
    item.place = i;
  }
}
