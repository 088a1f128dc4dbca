import vm from 'node:vm';

/** A rectangle of a canvas with the colour that it was filled with; `rgb(<name> / 1)`, as styles are names here. */
interface Filled {
	readonly x: number;
	readonly y: number;
	readonly width: number;
	readonly height: number;
	readonly colour: string;
	readonly alpha: number;
}

type Handler = (event: object) => void;

/** As much of an element as the script of a trace's page asks for. */
class Element {
	readonly style: Record<string, string> = {};
	readonly classList = { add: () => undefined, remove: () => undefined };
	readonly handlers = new Map<string, Handler>();
	readonly attributes = new Map<string, string>();
	readonly filled: Filled[] = [];
	readonly texts: string[] = [];
	children: (Element | string)[] = [];
	textContent = '';
	hidden = false;
	width = 0;
	height = 0;
	clientWidth = 1200;
	clientHeight = 2000;
	scrollLeft = 0;
	scrollTop = 0;
	isConnected = true;

	get firstChild(): Element | string | undefined {
		return this.children[0];
	}
	append(...children: (Element | string)[]): void {
		this.children.push(...children);
	}
	replaceChildren(): void {
		this.children = [];
	}
	setAttribute(name: string, value: string): void {
		this.attributes.set(name, value);
	}
	addEventListener(name: string, handler: Handler): void {
		this.handlers.set(name, handler);
	}
	getBoundingClientRect(): object {
		return { left: 0, top: 0, width: 100, height: 40 };
	}
	getContext(): object {
		const { filled, texts } = this;
		const state = { fillStyle: '', globalAlpha: 1 };
		const nothing = () => undefined;
		const names = ['setTransform', 'save', 'restore', 'beginPath', 'rect', 'clip', 'strokeRect', 'moveTo', 'lineTo', 'stroke'];
		return Object.assign(
			state,
			Object.fromEntries([...names, 'setLineDash', 'translate', 'rotate', 'clearRect', 'drawImage'].map((name) => [name, nothing])),
			{
				measureText: () => ({ width: 30 }),
				fillText: (text: string) => texts.push(text),
				fillRect: (x: number, y: number, width: number, height: number) =>
					filled.push({ x, y, width, height, colour: state.fillStyle, alpha: state.globalAlpha }),
			},
		);
	}
}

/** Room for labels at the sides of the picture, where a cell is wide enough for them: 20 and the width of a text here. */
export const margin = 50;

/** A trace's page with its script run. */
export class Page {
	readonly #elements = new Map<string, Element>();

	constructor(html: string) {
		const scripts = [...html.matchAll(/<script([^>]*)>([\s\S]*?)<\/script>/g)];
		this.element('trace').textContent = scripts.find(([, kind]) => kind!.includes('json'))![2]!;
		const style = { getPropertyValue: (name: string) => name.slice(2) };
		const context = {
			document: {
				documentElement: {},
				getElementById: (id: string) => this.element(id),
				createElement: () => new Element(),
				querySelector: () => null,
				querySelectorAll: () => [],
			},
			getComputedStyle: () => style,
			matchMedia: () => new Element(),
			addEventListener: () => undefined,
			devicePixelRatio: 1,
			innerHeight: 5000,
			innerWidth: 1400,
		};
		vm.runInNewContext(scripts.find(([, kind]) => kind === '')![2]!, context);
	}

	element(id: string): Element {
		if (!this.#elements.has(id)) this.#elements.set(id, new Element());
		return this.#elements.get(id)!;
	}

	/** What the buttons of a strip say. */
	choices(id: string): string[] {
		return this.element(id).children.map((button) => (button as Element).children[1] as string);
	}

	/** Press the button of a strip that says this. */
	choose(id: string, name: string): void {
		const button = this.element(id).children[this.choices(id).indexOf(name)] as Element;
		this.element('picture').filled.length = 0;
		button.handlers.get('click')!({});
	}

	/** The colour in the middle of a cell, and how strong it is. */
	at(p: number, t: number, cell: number): { colour: string; alpha: number } {
		const [x, y] = [margin + (p + 0.5) * cell, margin + (t + 0.5) * cell];
		const over = this.element('picture').filled.filter(
			(rect) => x > rect.x && x < rect.x + rect.width && y > rect.y && y < rect.y + rect.height,
		);
		const { colour, alpha } = over.at(-1)!;
		return { colour: /^rgb\((\w+)/.exec(colour)![1]!, alpha };
	}

	/** What is said when the pointer is at a cell. */
	point(p: number, t: number, cell: number): string {
		const event = { clientX: margin + (p + 0.5) * cell, clientY: margin + (t + 0.5) * cell };
		this.element('picture').handlers.get('pointermove')!(event);
		return this.element('tip').hidden ? '' : this.element('tip').textContent;
	}
}
