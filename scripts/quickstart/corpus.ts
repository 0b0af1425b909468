import { expand, pick, seededRandom, shuffled, type Facts, type Random } from './grammar.ts'
import { phrases, problems, templates, type Problem } from './texts.ts'
import { drawFacts } from './words.ts'

/** Share of each kind of text in the corpus, in parts of their sum. */
const kinds: readonly { readonly weight: number; readonly make: (facts: Facts, random: Random) => string }[] = [
  { weight: 24, make: letters },
  { weight: 16, make: chat },
  { weight: 14, make: repeated },
  { weight: 8, make: note },
  { weight: 20, make: fromTemplates('story') },
  { weight: 6, make: fromTemplates('description') },
  { weight: 6, make: fromTemplates('list') },
  { weight: 10, make: fromTemplates('question') },
  { weight: 3, make: fromTemplates('review') },
  { weight: 3, make: fromTemplates('howto') },
]

/**
 * Simple English about a world of shops, parcels and customers: letters with answers, chats, notes, stories, lists,
 * questions. It holds everything the tickets speak of, but never their form (`category:`, `reply:`).
 */
export function* corpus({ seed, documents }: { seed: number; documents: number }): Generator<string> {
  const random = seededRandom(seed, 'quickstart corpus')
  const total = kinds.reduce((sum, { weight }) => sum + weight, 0)
  for (let count = 0; count < documents; count++) {
    let left = random() * total
    const kind = kinds.find(({ weight }) => (left -= weight) < 0) ?? kinds[0]
    if (kind) yield kind.make(drawFacts(random), random)
  }
}

function fromTemplates(name: string): (facts: Facts, random: Random) => string {
  const list = templates[name]
  if (!list) throw new Error(`corpus: no templates are named ${name}`)
  return (facts, random) => expand(pick(random, list), phrases, facts, random)
}

/** A customer's letter and the answer of the shop, which speaks of the same things. */
function letters(facts: Facts, random: Random): string {
  const problem = pick(random, problems)
  const complaint = expand(
    `[{hello}|Dear {shop}],\n${pick(random, problem.complaint)} {please}\n{bye}\n{name}`,
    phrases,
    facts,
    random,
  )
  const answer = expand(
    `Dear {first},\n{thanks}[, and {sorry}|. {sorry}]. ${answerOf(problem, random)} {close}\n{bye}\n{agent}, {shop}`,
    phrases,
    facts,
    random,
  )
  return tidy(pick(random, [`${complaint}\n\n${answer}`, `${complaint}\n\n${answer}`, answer, complaint]))
}

function chat(facts: Facts, random: Random): string {
  const problem = pick(random, problems)
  const turns = [
    '{agent}: [Hello|Good morning|Welcome to {shop}], this is {agent}. How can I help?',
    `{first}: [Hello {agent}. |Hi. |]${pick(random, problem.complaint)}`,
    pick(random, ['', '{agent}: What is your name?\n{first}: My name is {name}.']),
    pick(random, ['', '{agent}: Which order is it?\n{first}: It is order {order}.']),
    pick(random, ['', '{agent}: So it is about the {product}?\n{first}: Yes, the {product}.']),
    pick(random, ['', '{agent}: Where do you live?\n{first}: I live in {city}.']),
    `{agent}: [Thank you, {first}. |I see. |{sorry}. ]${answerOf(problem, random)}`,
    '{first}: [Thank you|Thanks, {agent}|That is good|Great, thank you]. [Goodbye|Bye|Have a nice day].',
  ]
  return tidy(expand(turns.filter(Boolean).join('\n'), phrases, facts, random))
}

function note(facts: Facts, random: Random): string {
  const problem = pick(random, problems)
  const template = pick(random, [
    '{name} from {city} [called|wrote] on {day}. In short, SUMMARY. {first} said: "COMPLAINT" {agent} answered: "ANSWER"',
    'Note for {agent}: SUMMARY. The customer is {name}, and the order is {order}. Please call {first} on {dayAfter}. It is about the {product}.',
    '{agent}, please look at the letter of {name}. It is about a {product}. {first} says: "COMPLAINT" I think SUMMARY. Tell {first} this: "ANSWER"',
    'On {day} SUMMARY. On {dayAfter} {agent} wrote to {name}: "ANSWER" Then {first} was {mood} again.',
  ])
  const filled = template
    .replaceAll('SUMMARY', pick(random, problem.summary))
    .replaceAll('COMPLAINT', pick(random, problem.complaint))
    .replaceAll('ANSWER', answerOf(problem, random))
  return tidy(expand(filled, phrases, facts, random))
}

/**
 * Things named once and then again, in the same order or asked for one by one. This is what teaches a small model to
 * look back and copy (Olsson et al. 2022, "In-context Learning and Induction Heads"); other texts do so far more slowly.
 */
function repeated(facts: Facts, random: Random): string {
  const rows = Array.from({ length: 2 + Math.floor(random() * 4) }, () => drawFacts(random))
  const [statement, question, answer] = pick(random, [
    ['{name}: order {order}', 'Order of {first}?', '{order}'],
    ['Order {order}: {product}', 'What is in order {order}?', '{product}'],
    ['{name} from {city}', 'Where does {first} live?', '{city}'],
    ['{first}: {product}', 'What does {first} want?', '{product}'],
    ['{product}, {amount} dollars', 'How much is the {product}?', '{amount} dollars'],
    ['{first} {last}, {product}, order {order}', 'Full name of {first}?', '{first} {last}'],
  ] as const)
  const lines = (template: string, list: readonly Facts[]) => list.map((row) => `- ${fill(template, row)}`).join('\n')
  const fill = (template: string, row: Facts) => expand(template, phrases, row, random)
  const heading = expand('[{shop}, {day}|List of {agent}|Notes of {day}|Orders from {city}]:', phrases, facts, random)
  const list = `${heading}\n${lines(statement, rows)}`
  if (random() < 0.5) {
    return `${list}\n${pick(random, ['The same list again:', 'Once more:', 'Copy:', 'Read aloud:'])}\n${lines(statement, rows)}`
  }
  return `${list}\n${lines(`${question} ${answer}`, shuffled(random, rows))}`
}

function answerOf(problem: Problem, random: Random): string {
  return pick(random, problem.answer)
}

/** No space at the end of a line, no double spaces. */
function tidy(text: string): string {
  return text.replaceAll(/ +/g, ' ').replaceAll(/ (?=\n|$)/g, '')
}
