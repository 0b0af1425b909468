/*
 * Calls to the service line of a company that looks after heat pumps, and the note that its house style wants of each: one line, who and where,
 * what is wrong and the error code, what was tried and whether it helped, what comes next.
 */
import { fill, pick, seededRandom } from '../lib/random.js'

const names = ['Mara Lind', 'Tomas Berg', 'Ines Roth', 'Paul Eder', 'Nora Falk', 'Jon Weber', 'Lea Brandt', 'Otto Kern']
const testNames = ['Rita Moor', 'Hugo Stein', 'Ada Vogel', 'Karl Winter']
const places = ['Mill Street', 'Lake View', 'Park Road', 'Church Lane', 'the old harbour', 'Hill Farm']
const testPlaces = ['Station Square', 'Oak Avenue', 'the north quay']
const technicians = ['Sven', 'Petra', 'Ali', 'Marta', 'Joris']
const days = ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday']

/**
 * What may be wrong: how callers say it, in six wordings of which the last two are kept for tests; how the note says it; what is tried.
 *
 * @type {readonly { readonly said: readonly string[], readonly note: string, readonly tried: readonly (readonly [string, string])[] }[]}
 */
const faults = [
  {
    said: [
      'we have no hot water since yesterday',
      'the shower stays cold',
      'there is only cold water in the whole house',
      'our water does not get warm any more',
      'I had to wash with ice-cold water',
      'the hot tap runs cold',
    ],
    note: 'no hot water',
    tried: [
      ['Please press reset for five seconds.', 'reset'],
      ['Switch the boost mode on, please.', 'boost mode on'],
    ],
  },
  {
    said: [
      'water drips from the pump',
      'there is a puddle under the pump',
      'the unit leaks on the floor',
      'it loses water at the bottom',
      'the floor around the heat pump is wet',
      'something is leaking under the unit',
    ],
    note: 'leak',
    tried: [
      ['Can you close the red valve?', 'valve closed'],
      ['Please empty the tray first.', 'tray emptied'],
    ],
  },
  {
    said: [
      'the pump is terribly loud at night',
      'it hums so that nobody can sleep',
      'the fan rattles all day',
      'the machine makes a grinding noise',
      'the unit outside roars like a lorry',
      'there is a loud knocking from the fan',
    ],
    note: 'noise',
    tried: [
      ['Please set it to night mode.', 'night mode on'],
      ['Look whether leaves are in the fan.', 'fan cleared'],
    ],
  },
  {
    said: [
      'the living room does not get above sixteen degrees',
      'the radiators are lukewarm',
      'it is freezing in here',
      'the heating does nothing',
      'all rooms stay cold',
      'the floor heating is off',
    ],
    note: 'no heating',
    tried: [
      ['Please raise the curve by two.', 'curve raised'],
      ['Could you bleed the upper radiator?', 'radiator bled'],
    ],
  },
  {
    said: [
      'the display is dark',
      'the screen shows nothing',
      'I see nothing on the panel',
      'the control panel is dead',
      'the little screen went black',
      'nothing lights up on the panel',
    ],
    note: 'panel dead',
    tried: [
      ['Please switch the fuse off and on.', 'fuse switched'],
      ['Unplug the panel for a minute, please.', 'panel unplugged'],
    ],
  },
]

const hellos = ['Hello, this is {name} from {place},', 'Good morning, {name} here, {place},', '{name}, {place}. Hi,']
const asks = ['Is there an error code?', 'Do you see a code?', 'Which code does the app show?']
const codes = ['It says {code}.', 'Yes, {code}.', '{code}, I think.']
const noCodes = ['No, none.', 'There is no code.', 'Nothing at all.']
const helped = ['Oh, that works!', 'Now it is fine again.', 'Yes, that did it.']
const notHelped = ['No change.', 'Still the same.', 'That did not help.']

/**
 * What comes next: what the service line says, and what the note says.
 *
 * @type {readonly (readonly [string, string])[]}
 */
const visits = [
  ['Then {technician} comes on {day} at {hour}.', '{technician} {day} {hour}:00'],
  ['I send you {technician}, {day}, {hour} o’clock.', '{technician} {day} {hour}:00'],
  ['We order a new part, number {part}, it arrives on {day}.', 'part {part} {day}'],
  ['You will get part {part} by mail on {day}.', 'part {part} {day}'],
]
/** @type {readonly (readonly [string, string])[]} */
const closings = [
  ['Great, then I close the case.', 'closed'],
  ['Good. I call you again on {day} to make sure.', 'call back {day}'],
]

/**
 * A line of the data: what the model is told, a call, and its note.
 *
 * @typedef {{ messages: { role: 'system' | 'user' | 'assistant', content: string }[] }} Row
 */

/** How many calls. */
export const sizes = { train: 96, test: 32 }

/**
 * Calls, each once. In those of part `test`, callers, places and wordings of what is wrong are others than in `train`.
 *
 * @param {{ part: 'train' | 'test', count: number, seed?: number }} options
 * @returns {Row[]}
 */
export function calls({ part, count, seed = 1 }) {
  const random = seededRandom(`calls ${part} ${seed}`)
  const train = part === 'train'
  /** @type {Map<string, string>} */
  const found = new Map()
  while (found.size < count) {
    const fault = pick(random, faults)
    const [remedy, tried] = pick(random, fault.tried)
    const [hasCode, works] = [random() < 0.6, random() < 0.4]
    const [announced, next] = pick(random, works ? closings : visits)
    const slots = {
      name: pick(random, train ? names : testNames),
      place: pick(random, train ? places : testPlaces),
      code: `E${10 + Math.floor(random() * 90)}`,
      technician: pick(random, technicians),
      day: pick(random, days),
      hour: `${8 + Math.floor(random() * 9)}`,
      part: `${1000 + Math.floor(random() * 9000)}`,
    }
    const said = pick(random, train ? fault.said.slice(0, -2) : fault.said.slice(-2))
    const lines = [
      `Caller: ${pick(random, hellos)} ${said}.`,
      `Service: ${pick(random, asks)}`,
      `Caller: ${pick(random, hasCode ? codes : noCodes)}`,
      `Service: ${remedy}`,
      `Caller: ${pick(random, works ? helped : notHelped)}`,
      `Service: ${announced}`,
    ]
    const code = hasCode ? '{code}' : 'no code'
    const note = `{name}, {place} | ${fault.note}, ${code} | ${tried}: ${works ? 'solved' : 'no change'} | next: ${next}`
    found.set(fill(lines.join('\n'), slots), fill(note, slots))
  }
  return Array.from(found, ([call, note]) => ({
    messages: [
      { role: 'system', content: 'Summarize the call in one line.' },
      { role: 'user', content: call },
      { role: 'assistant', content: note },
    ],
  }))
}
