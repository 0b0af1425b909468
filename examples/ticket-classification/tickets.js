/*
 * Tickets to two companies that rent out electric bikes, and the queues that each company's house rules send them to. Both get the same
 * kinds of tickets; their queues and rules differ, so that no ticket says by itself where it belongs.
 */
import { fill, pick, seededRandom, shuffled } from '../lib/random.js'

/**
 * What a ticket is about: eight wordings each, of which the last two are kept for tests.
 *
 * @satisfies {Readonly<Record<string, readonly string[]>>}
 */
const matters = {
  brake: [
    'The front brake hardly grips any more.',
    'When I pull the brake lever it touches the handlebar and nothing happens.',
    'It takes me ten metres to stop, the brakes are worn down.',
    'The rear brake squeals and then lets go on the hill.',
    'I almost ran into a bus because the bike did not slow down.',
    'One of the brake cables has snapped.',
    'Stopping has become a gamble, the pads must be gone.',
    'The brakes feel soft like butter.',
  ],
  battery: [
    'The battery gets so hot that I cannot touch it.',
    'There is a smell of burnt plastic from the battery while it charges.',
    'The battery case has swollen and no longer fits its slot.',
    'Smoke came out of the battery this morning.',
    'I saw sparks where the battery sits.',
    'The charger hums and the battery hisses.',
    'The power pack under the carrier is warm and bulging.',
    'Something in the battery crackles when I plug it in.',
  ],
  flat: [
    'I have a flat tyre and stand here with the bike.',
    'There is a nail in the rear tyre and all the air is gone.',
    'The tube burst, I had to push the bike to {place}.',
    'Both tyres are flat and I cannot get home.',
    'My tyre lost its air halfway to {place}.',
    'The valve broke off and the wheel is flat.',
    'A piece of glass went through the tyre, I am stuck near {place}.',
    'No air left in the front wheel, and no pump far and wide.',
  ],
  lock: [
    'The lock does not open, the bike is stuck at {place}.',
    'The app says unlocked, but the ring lock stays closed.',
    'I cannot release the wheel lock near {place}.',
    'The lock jams and the bike stands in the rain.',
    'The bike will not unlock although I am right beside it.',
    'The bolt of the lock is bent and the wheel is blocked.',
    'I press open again and again, but the bike at {place} remains locked.',
    'My bike is chained to itself, the lock does not react.',
  ],
  display: [
    'The display stays black, although the bike rides.',
    'My display shows error {number} all the time.',
    'The screen on the handlebar has a crack through the middle.',
    'The display counts kilometres backwards.',
    'I cannot read the speed, half of the screen is dark.',
    'The buttons of the display do not respond.',
    'The little monitor on the handlebar froze on {number}.',
    'Nothing is shown on the screen any more, riding works.',
  ],
  gear: [
    'The gears slip when I pedal hard.',
    'The chain jumps off in third gear.',
    'I can only use two of the eight gears.',
    'There is a grinding noise from the gears.',
    'Changing gear takes three attempts.',
    'The gear shifter turns without effect.',
    'The chain rattles and the gears change by themselves.',
    'Shifting down makes an ugly crunch.',
  ],
  light: [
    'The rear light flickers.',
    'The front light has become very weak.',
    'The lights stay on even when I park.',
    'The headlamp hangs loose.',
    'My rear light fell off.',
    'The light goes out at every bump.',
    'The lamp at the back is dead.',
    'My headlight blinks like a disco.',
  ],
  double: [
    'You took {amount} euros from my account twice.',
    'My card was charged two times for this month.',
    'I see two payments of {amount} euros on the same day.',
    'The monthly fee was debited again, a week after the first time.',
    'You have billed me double.',
    'There is one payment of {amount} euros too many.',
    'Why did the same fee leave my account twice?',
    'The bank shows the {amount} euros two times.',
  ],
  deposit: [
    'I gave the bike back and still wait for my deposit of {amount} euros.',
    'When do I get the deposit back?',
    'The deposit was not returned, it is {amount} euros.',
    'My contract ended, but the deposit has not arrived.',
    'You kept {amount} euros of my deposit without a reason.',
    'Only half of my deposit came back.',
    'The {amount} euros that I left as security are still with you.',
    'I miss the security money from my old contract.',
  ],
  invoice: [
    'I need an invoice for last month.',
    'Please send me the receipt for {amount} euros.',
    'The invoice shows the wrong name.',
    'I cannot find the bill for my taxes.',
    'Could I have all invoices of this year as a file?',
    'The amount on the invoice is {amount} euros, without the tax.',
    'My tax office wants a proper bill from you.',
    'Please issue the receipt again, the old one is unreadable.',
  ],
  cancel: [
    'I would like to end my contract.',
    'Please cancel my subscription at the end of the month.',
    'I am moving abroad and no longer need the bike.',
    'How do I get out of the contract?',
    'I want to give notice.',
    'Please stop my plan, I have bought a bike of my own.',
    'This shall be my last month with you.',
    'I want to quit the plan.',
  ],
  address: [
    'I have moved to {place}, please change my address.',
    'My e-mail address has changed.',
    'My new telephone number ends in {number}.',
    'Please correct the spelling of my name.',
    'From next week on I live near {place}.',
    'I have married and have a new name.',
    'Letters to me should go to {place} from now on.',
    'Please update the phone number, the new one ends in {number}.',
  ],
  login: [
    'I cannot log in to the app.',
    'The code for the login never arrives.',
    'The app says that my password is wrong.',
    'My account is locked after three attempts.',
    'The link to reset the password has expired.',
    'After the update the app does not know me any more.',
    'The app throws me out when I enter my password.',
    'I am waiting for the text message with the login code.',
  ],
  fine: [
    'I got a parking fine of {amount} euros for your bike.',
    'The city wants {amount} euros since the bike stood on the pavement.',
    'A penalty notice with the number {number} came by mail.',
    'The police gave me a ticket for a missing reflector.',
    'I am to pay a fine although I had returned the bike.',
    'There is a letter from the traffic office about {place}.',
    'The town hall sent me a penalty for parking at {place}.',
    'Somebody parked your bike wrongly and I shall pay {amount} euros to the city.',
  ],
  accident: [
    'I had a crash with a car at {place}.',
    'I scratched a parked car with the bike.',
    'A pedestrian was hurt when I turned at {place}.',
    'After a fall the other party asks for my insurance.',
    'Another cyclist ran into me and the frame is bent.',
    'There was an accident and the police wrote a report.',
    'I collided with a delivery van near {place}.',
    'I hit the mirror of a taxi, and the driver wants money.',
  ],
  stolen: [
    'My bike was stolen last night.',
    'The bike is gone from {place}, somebody cut the chain.',
    'Thieves took the bike out of our cellar.',
    'I came back to {place} and the bike had disappeared.',
    'My bike is missing, I have been to the police.',
    'Somebody has taken the bike and the helmet.',
    'The bike is no longer where I left it at {place}.',
    'They broke into the shed and rode away on your bike.',
  ],
  price: [
    'What does the cargo bike cost each month?',
    'Is there a discount for students?',
    'I would like to change to the larger model.',
    'Do you also rent out trailers?',
    'Which plan fits a ride of {amount} kilometres a week?',
    'I want a second bike, what is the price?',
    'How much more is the model with the big basket?',
    'Could I swap my bike for one with a stronger motor?',
  ],
  pickup: [
    'When can I collect my new bike?',
    'Is the shop at {place} open on Saturday?',
    'My bike was to be delivered on {day}.',
    'Can you bring the new bike to {place}?',
    'Where is the nearest pick-up point?',
    'I have ordered a bike and hear nothing about the date.',
    'Until what time is somebody at the counter in {place}?',
    'I wait for the handover that was planned for {day}.',
  ],
}

/**
 * What a ticket may mention beside its matter; here too the last two wordings are kept for tests.
 *
 * @satisfies {Readonly<Record<string, readonly string[]>>}
 */
const mentions = {
  business: [
    'We use six of your bikes for our couriers.',
    'The bike belongs to the fleet of our bakery.',
    'I write for my company, we have a business contract.',
    'Our employees ride your bikes to the office.',
    'It is bike {number} of our company fleet.',
    'Our firm rents twelve bikes from you.',
    'I look after the bikes of our staff.',
    'It is one of the bikes that our office leases.',
  ],
  child: [
    'My daughter sits in the child seat.',
    'I take my son to the kindergarten with it.',
    'The kids ride with me.',
    'I have a baby on board.',
    'My little boy was with me.',
    'We use it with the child trailer.',
    'My twins travel in the front box.',
    'There is a toddler on the back seat.',
  ],
  lawyer: [
    'My lawyer will write to you.',
    'Otherwise I go to the consumer office.',
    'I have legal insurance and will use it.',
    'I set you a deadline of seven days, then I sue.',
    'My attorney has a copy of this.',
    'I will take this to court.',
    'The ombudsman will hear of this.',
    'Next comes a letter from my solicitor.',
  ],
}

/** @typedef {keyof typeof matters} Matter */
/** @typedef {keyof typeof mentions} Mention */

/**
 * A company: what each ticket goes by, the first rule that fits.
 *
 * @typedef {object} Site
 * @property {readonly string[]} queues
 * @property {(matter: Matter, mention: Mention | undefined) => string} queueOf
 */

/** @type {Readonly<Record<string, Site>>} */
export const sites = {
  velora: {
    queues: ['safety', 'legal', 'fleet', 'roadside', 'workshop', 'billing', 'account', 'sales'],
    queueOf: (matter, mention) => {
      // Nobody waits where somebody may be hurt, and broken things count twice with children.
      if (matter === 'brake' || matter === 'battery') return 'safety'
      if (mention === 'child' && ['flat', 'lock', 'display', 'gear', 'light'].includes(matter)) return 'safety'
      if (mention === 'lawyer' || matter === 'accident' || matter === 'fine') return 'legal'
      if (mention === 'business') return 'fleet'
      if (['flat', 'lock', 'stolen'].includes(matter)) return 'roadside'
      if (['display', 'gear', 'light'].includes(matter)) return 'workshop'
      if (['double', 'deposit', 'invoice'].includes(matter)) return 'billing'
      return ['cancel', 'address', 'login'].includes(matter) ? 'account' : 'sales'
    },
  },
  nordrad: {
    queues: ['urgent', 'partner', 'depot', 'digital', 'ledger', 'contract', 'shop'],
    queueOf: (matter, mention) => {
      // Here a business contract goes first, but for what burns or is gone; a lawyer changes nothing.
      if (['battery', 'accident', 'stolen'].includes(matter)) return 'urgent'
      if (mention === 'business') return 'partner'
      if (['brake', 'flat', 'gear', 'light'].includes(matter)) return 'depot'
      if (['lock', 'display', 'login'].includes(matter)) return 'digital'
      if (['double', 'deposit', 'fine'].includes(matter)) return 'ledger'
      return ['cancel', 'address', 'invoice'].includes(matter) ? 'contract' : 'shop'
    },
  },
}

const places = [
  'the station',
  'Mill Street',
  'the harbour',
  'Park Road',
  'the old bridge',
  'the university',
  'Lake View',
]
const days = ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday']
const hellos = ['Hello,', 'Good morning,', 'Hi,', 'Dear team,', 'Hi there,', '']
const byes = ['Thanks.', 'Please help.', 'Kind regards', 'What now?', 'Please call me back.', '', '']

/**
 * A line of the data: a ticket and its queue.
 *
 * @typedef {{ prompt: string, completion: string }} Row
 */

/** How many tickets of each site. */
export const sizes = { train: 320, test: 60 }

/**
 * Tickets of a site, each once. Those of a part `test` are made of wordings that `train` does not have.
 *
 * @param {keyof typeof sites} name
 * @param {{ part: 'train' | 'test', count: number, seed?: number }} options
 * @returns {Row[]}
 */
export function tickets(name, { part, count, seed = 1 }) {
  const site = sites[name]
  if (site === undefined) throw new Error(`no site ${name}`)
  const random = seededRandom(`tickets ${part} ${seed}`)
  /** @param {readonly string[]} wordings */
  const worded = (wordings) => pick(random, part === 'train' ? wordings.slice(0, -2) : wordings.slice(-2))
  const [kinds, others] = [
    /** @type {Matter[]} */ (Object.keys(matters)),
    /** @type {Mention[]} */ (Object.keys(mentions)),
  ]
  /** @type {Map<string, string>} */
  const found = new Map()
  for (let i = 0; found.size < count; i++) {
    const matter = /** @type {Matter} */ (kinds[i % kinds.length])
    const mention = random() < 0.5 ? pick(random, others) : undefined
    const said = [worded(matters[matter]), ...(mention === undefined ? [] : [worded(mentions[mention])])]
    const slots = {
      place: pick(random, places),
      day: pick(random, days),
      number: `${100 + Math.floor(random() * 900)}`,
      amount: `${10 + Math.floor(random() * 90)}`,
    }
    const text = [pick(random, hellos), ...shuffled(random, said), pick(random, byes)]
      .filter((one) => one !== '')
      .join(' ')
    found.set(fill(text, slots), site.queueOf(matter, mention))
  }
  const rows = [...found].map(([ticket, queue]) => ({ prompt: `Ticket: ${ticket}\nQueue:`, completion: ` ${queue}` }))
  return shuffled(random, rows)
}
