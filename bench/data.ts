/**
 * Support tickets as a fine-tuning dataset holds them: prompts of 60 to 500 tokens (median about 230), completions of 10 to
 * 80 (median about 27), lengths log-normal. The reply follows from the ticket (its issue, product and customer), so that
 * training helps; the rest of the ticket is noise. Made up here from word lists: no real person or product is meant.
 */
import { shuffled, stream, uniform } from '../src/util/random.ts'

export interface PromptCompletion {
  readonly prompt: string
  readonly completion: string
}

/** `count` examples; example i depends on (seed, i) only, so a longer list begins with the shorter one. */
export function realShapedExamples({ count, seed }: { count: number; seed: number }): PromptCompletion[] {
  return Array.from({ length: count }, (_, index) => ticket(seed, index))
}

/** The examples as a JSONL file holds them. */
export function toJsonl(examples: readonly PromptCompletion[]): string {
  return examples.map((example) => JSON.stringify(example) + '\n').join('')
}

function ticket(seed: number, index: number): PromptCompletion {
  const draws = uniform(stream(seed, 'ticket', index), 64)
  let drawn = 0
  const draw = (): number => draws[drawn++ % draws.length]!
  const pick = (list: readonly string[]): string => list[Math.floor(draw() * list.length)]!
  const logNormal = (median: number, spread: number, low: number, high: number): number => {
    const normal = Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw())
    return Math.min(high, Math.max(low, median * Math.exp(spread * normal)))
  }

  const promptTokens = logNormal(220, 0.5, 64, 465)
  const replyTokens = logNormal(27, 0.5, 12, 64)
  const issue = issues[Math.floor(draw() * issues.length)]!
  const urgent = draw() < 0.3
  const slots: Record<string, string> = {
    name: pick(names),
    product: pick(products),
    place: pick(places),
    day: pick(days),
    order: String(10000 + Math.floor(draw() * 90000)),
    number: String(2 + Math.floor(draw() * 28)),
    device: pick(devices),
    colleague: pick(names),
  }
  const fill = (text: string): string => text.replace(/\{(\w+)\}/g, (_, slot: string) => slots[slot]!)

  const head = fill(`Customer: {name}, {place}\nProduct: {product}\nSubject: ${issue.subject}\n\n`)
  const tail = '\n\nReply:'
  const complaint = urgent ? [issue.complaint, urgency] : [issue.complaint]
  const order = shuffled(background.length, stream(seed, 'background', index))
  const noise = Array.from(order, (place) => background[place]!)
  const body = upTo(promptTokens - tokens(head + tail), [...complaint, ...noise].map(fill))

  const label = `${issue.category}, ${urgent ? 'urgent' : 'normal'}.`
  const [first, ...rest] = issue.reply
  const answer = [`${label} ${first}`, ...(draw() < 0.5 ? [thanks] : []), ...rest, ...closing]
  return { prompt: head + body + tail, completion: ' ' + upTo(replyTokens, answer.map(fill)) }
}

/** As many sentences as come closest to `target` tokens, at least one; every fifth begins a paragraph. */
function upTo(target: number, sentences: readonly string[]): string {
  let text = sentences[0]!
  for (const [index, sentence] of sentences.entries()) {
    if (index === 0) continue
    const longer = text + (index % 5 === 0 ? '\n\n' : ' ') + sentence
    if (Math.abs(tokens(longer) - target) > Math.abs(tokens(text) - target)) break
    text = longer
  }
  return text
}

/** About what a byte-pair tokenizer makes of English: a token a word, digit, mark or blank line, two for a long word. */
function tokens(text: string): number {
  const pieces = text.match(/[A-Za-z']+|\d|\n+|[^\sA-Za-z\d]/g) ?? []
  return pieces.reduce((sum, piece) => sum + (piece.length > 11 ? 2 : 1), 0)
}

const names =
  'Alice Omar Priya Jonas Mei Carlos Fatima Henrik Grace Tomasz Leila Victor Hannah Samuel Ingrid Diego'.split(' ')
const places = ['Lyon', 'Austin', 'Leeds', 'Toronto', 'Porto', 'Nairobi', 'Osaka', 'Krakow', 'Dublin', 'Melbourne']
const days = ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday']
const products = [
  'Harbor Mail',
  'Pine Router',
  'Quill Notes',
  'Atlas Backup',
  'Beacon Camera',
  'Ledger Pro',
  'Orbit Speaker',
]
const devices = [
  'my laptop',
  'an older tablet',
  'my phone',
  'the office computer',
  'a borrowed laptop',
  'our front desk PC',
]

const urgency = 'Please treat this as urgent, because we cannot work until it is solved.'

const issues = [
  {
    category: 'Billing',
    subject: 'Charged twice this month',
    complaint: 'My card was charged twice for {product} on {day}, and order {order} shows up two times in my account.',
    reply: [
      'Hello {name}, we have refunded the second charge for order {order}.',
      'The money will be back on your card within five working days.',
      'Your {product} subscription stays active and the next invoice will be correct.',
    ],
  },
  {
    category: 'Billing',
    subject: 'Invoice needs our tax number',
    complaint:
      'The invoice for order {order} does not show our company tax number, and our accountant will not accept it.',
    reply: [
      'Hello {name}, please add the tax number under Settings, Billing, Company.',
      'The invoice for order {order} is then issued again and sent to you by email.',
      'Invoices that were paid before this year have to be changed by our finance team.',
    ],
  },
  {
    category: 'Account',
    subject: 'Cannot sign in',
    complaint:
      'Since {day} I cannot sign in to {product}, it says that the password is wrong although I changed nothing.',
    reply: [
      'Hello {name}, your account was locked after several failed attempts.',
      'We have unlocked it, so please choose a new password with the link in our email.',
      'If you sign in from a shared network, switch on the second factor for {product} as well.',
    ],
  },
  {
    category: 'Account',
    subject: 'Former employee still has access',
    complaint: '{colleague} left our company on {day} and can still open our shared {product} workspace.',
    reply: [
      'Hello {name}, we have ended all sessions of {colleague}.',
      'Please remove the seat under Team, Members, so that it is not billed again.',
      'The files that {colleague} owned in {product} now belong to the workspace owner.',
    ],
  },
  {
    category: 'Shipping',
    subject: 'Parcel has not arrived',
    complaint: 'Order {order} should have been here on {day}, but the tracking page has not moved for {number} days.',
    reply: [
      'Hello {name}, the parcel with order {order} was lost by the carrier.',
      'We have sent a new {product} to {place} today by express delivery.',
      'If the first parcel turns up after all, just refuse it at the door.',
    ],
  },
  {
    category: 'Hardware',
    subject: 'Device does not turn on',
    complaint: 'The {product} from order {order} does not turn on any more, the light blinks red and then goes out.',
    reply: [
      'Hello {name}, please hold the power button for thirty seconds with the cable removed.',
      'If the light still blinks red, the power supply is broken and we replace it for free.',
      'Send us a photo of the label on the back and we will prepare the return for order {order}.',
    ],
  },
  {
    category: 'Software',
    subject: 'Update broke synchronization',
    complaint:
      'After the update on {day}, {product} no longer synchronizes between {device} and the web, and shows error {number}.',
    reply: [
      'Hello {name}, error {number} comes from an old cache after the update.',
      'Please sign out of {product}, clear its cache in the settings, and sign in again.',
      'Nothing is lost: your data is still on our servers and comes back within minutes.',
    ],
  },
  {
    category: 'Software',
    subject: 'Export file is empty',
    complaint: 'When I export my data from {product} as a table, the file has only a header line and nothing below it.',
    reply: [
      'Hello {name}, the export only contains the rows of the current filter.',
      'Please clear the filter in {product} and export the table once more.',
      'Tables with more than ten thousand rows are sent to you by email instead.',
    ],
  },
  {
    category: 'Sales',
    subject: 'Moving to the yearly plan',
    complaint:
      'We are {number} people in {place} and would like to move from the monthly to the yearly plan of {product}.',
    reply: [
      'Hello {name}, you can change to the yearly plan under Settings, Plan.',
      'For {number} seats of {product} you save two months compared with monthly payment.',
      'What you have already paid this month is taken off the first yearly invoice.',
    ],
  },
  {
    category: 'Privacy',
    subject: 'Please delete my data',
    complaint: 'I closed my {product} account on {day} and want all data that you hold about me to be deleted.',
    reply: [
      'Hello {name}, we have started the deletion of your {product} data.',
      'It is complete after thirty days, and you will get a confirmation by email.',
      'Invoices are kept for as long as the law requires, and for nothing else.',
    ],
  },
] as const

const thanks = 'Thank you for writing.'
const closing = ['Please write back if anything is still not clear.', 'Kind regards, the {product} support team.']

const background = [
  'I have been a customer for {number} years and never had a problem like this before.',
  'I already tried to restart everything, and it made no difference at all.',
  'The same thing happens on {device}, so I do not think that my browser is to blame.',
  'Your chat assistant only sent me links to articles that I had read before.',
  '{colleague} from our team saw it as well and can confirm what I describe here.',
  'We are a small shop in {place} and depend on this every single day.',
  'I called the hotline on {day} and waited for {number} minutes before the line went dead.',
  'A screenshot is attached, although you cannot see very much on it.',
  'I should add that we moved to a new office last month, and our internet provider changed too.',
  'It may be a coincidence, but it all began after the last maintenance window.',
  'My English is not perfect, so please ask if something in this message is hard to understand.',
  'I checked the status page, and according to it everything works as it should.',
  'Please do not close this ticket again without an answer, as happened the last time.',
  'The person who set this up for us has left, and nobody here knows the details.',
  'On {day} it worked for about an hour, and then the trouble came back.',
  'I have read the manual from the first to the last page and found nothing about it.',
  'We have a presentation for an important client next {day}, which makes me a little nervous.',
  'Apart from this we are very happy with what you make, and we recommend it to our friends.',
  'You can reach me in the mornings, or in the evening after seven, but not at lunch time.',
  'If it helps, I can give one of your engineers access to {device} for a while.',
  'My neighbour has the same product, and his works without any trouble.',
  'I removed the application and installed it again {number} times by now.',
  'The antivirus program was switched off during the last two attempts.',
  'I could not find the right form on your website, so I hope that this address is fine.',
  'There is also a strange noise now and then, but that may have nothing to do with it.',
  'In the forum somebody wrote that a reset would help, but I am afraid of losing my work.',
  'We use it together with a printer and a scanner from another company.',
  'An email about new terms came last week, and I have accepted them.',
  'I do not want to change to another company, but my patience has an end as well.',
  'All of our other equipment in {place} is running normally.',
  'Please tell me if you need the serial number, because I have to climb on a ladder to read it.',
  'The weather was bad that day and we had a short power cut, in case that matters.',
  'I also asked {colleague}, who knows much more about computers than I do.',
  'It would be nice to get an answer that was not written by a machine.',
] as const
