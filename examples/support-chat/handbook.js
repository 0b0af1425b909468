/*
 * The handbook of a product that does not exist: the Fernlight, a garden for a table, which waters and lights herbs by itself. What customers
 * ask about each passage, and what the support team answers: one short sentence, and the passage in brackets.
 */

/**
 * A passage: what it is called, what it says, and questions about it: two wordings of each, and their answer.
 *
 * @typedef {object} Passage
 * @property {string} title
 * @property {string} text
 * @property {readonly Question[]} questions
 */

/** @typedef {readonly [asked: readonly [string, string], answer: string]} Question */

/** @type {(title: string, text: string, ...questions: Question[]) => Passage} */
const passage = (title, text, ...questions) => ({ title, text, questions })

/** Passages whose questions are learned from. */
export const learned = [
  passage(
    'Reset',
    'Hold the leaf button for eight seconds until the ring turns white. The plan of lights is deleted, your plants are kept.',
    [
      ['How do I reset the Fernlight?', 'I want to go back to factory settings.'],
      'Hold the leaf button for eight seconds.',
    ],
    [['What do I lose when I reset it?', 'Is anything deleted by a reset?'], 'The plan of lights is deleted.'],
  ),
  passage(
    'Tank',
    'The tank holds 2.4 litres, enough for sixteen days of basil. Fill it to the blue line with tap water.',
    [['How much water goes into the tank?', 'What is the size of the tank?'], 'It holds 2.4 litres.'],
    [['How long does a full tank last?', 'How many days can I leave it without refilling?'], 'It lasts sixteen days.'],
  ),
  passage(
    'Feed',
    'Add two caps of green feed at each filling. Use no other fertilizer, it clogs the wick.',
    [['How much fertilizer do I need?', 'What dose of green feed is right?'], 'Add two caps at each filling.'],
    [['Can I use plant food from the supermarket?', 'Why only your own feed?'], 'Other fertilizer clogs the wick.'],
  ),
  passage(
    'Seed pods',
    'A pod sprouts within nine days. Leave the paper lid on until the leaves touch it.',
    [
      ['When will I see the first green?', 'My pods do nothing, how long should I wait?'],
      'A pod sprouts within nine days.',
    ],
    [
      ['When do I take the lid off?', 'Shall I remove the paper from the pods?'],
      'Leave it on until the leaves touch it.',
    ],
  ),
  passage(
    'Lamp height',
    'Keep the lamp ten centimetres above the leaves. Press both clips to slide it along the pole.',
    [
      ['How far should the lamp be from the plants?', 'What distance does the light need?'],
      'Keep it ten centimetres above the leaves.',
    ],
    [
      ['How do I move the lamp up?', 'The lamp is stuck on the pole, how do I slide it?'],
      'Press both clips to slide it.',
    ],
  ),
  passage(
    'Day and night',
    'The lamp shines fourteen hours a day, from six in the morning. Turn the dial to move the start by an hour.',
    [['How long is the light on?', 'For how many hours does it shine?'], 'It shines fourteen hours a day.'],
    [
      ['The light wakes me, can it begin later?', 'How do I change when the light starts?'],
      'Turn the dial to move the start.',
    ],
  ),
  passage(
    'Red ring',
    'A red ring means that the pump is blocked. Rinse the filter under warm water.',
    [['What does the red ring mean?', 'Why does the ring glow red?'], 'The pump is blocked.'],
    [['What do I do when it shows red?', 'How do I get rid of the red light?'], 'Rinse the filter under warm water.'],
  ),
  passage(
    'Yellow ring',
    'A yellow ring means that water runs low. It goes out three minutes after filling.',
    [['Why is the ring yellow?', 'What is the yellow light for?'], 'Water runs low.'],
    [
      ['I filled it and it is still yellow.', 'When does the yellow light go off?'],
      'It goes out three minutes after filling.',
    ],
  ),
  passage(
    'Blue ring',
    'A blue ring means that it looks for your network. Bring your phone within two metres.',
    [['What does it mean when the ring is blue?', 'The ring pulses blue, why?'], 'It looks for your network.'],
    [['How close must my phone be?', 'Where do I put the phone for pairing?'], 'Bring it within two metres.'],
  ),
  passage(
    'Power',
    'It draws 18 watts with the lamp on. Use the cable in the box, for 24 volts.',
    [['How much electricity does it use?', 'What is the power consumption?'], 'It draws 18 watts.'],
    [['Can I plug in another cable?', 'Which voltage does the cable have?'], 'Use the cable in the box, for 24 volts.'],
  ),
  passage(
    'Cleaning',
    'Clean the tank every six weeks with vinegar. The lamp is only wiped with a dry cloth.',
    [['How often must the tank be cleaned?', 'When do I clean it?'], 'Clean it every six weeks.'],
    [['May I wipe the lamp with water?', 'How do I get dust off the lamp?'], 'Wipe it with a dry cloth.'],
  ),
  passage(
    'Algae',
    'Green film in the tank comes from daylight. Cover the window of the tank with the sleeve.',
    [['Why does my water turn green?', 'Where does the green slime come from?'], 'It comes from daylight.'],
    [['How do I stop algae?', 'What can I do against the green film?'], 'Cover the window with the sleeve.'],
  ),
  passage(
    'Holidays',
    'Holiday mode saves water for thirty days. Press the moon button twice before you leave.',
    [['I am away for weeks, what then?', 'How long can it run in holiday mode?'], 'It saves water for thirty days.'],
    [['How do I turn on holiday mode?', 'What do I press before a trip?'], 'Press the moon button twice.'],
  ),
  passage(
    'Harvest',
    'Cut basil above the second pair of leaves. Never take more than a third at once.',
    [['Where do I cut my basil?', 'At which point do I harvest?'], 'Cut above the second pair of leaves.'],
    [['How much may I cut at a time?', 'Can I harvest the whole plant?'], 'Never take more than a third at once.'],
  ),
  passage(
    'Chilli',
    'Chilli needs the tall pole, sold apart. It bears fruit after eleven weeks.',
    [['What do I need to grow chilli?', 'Does chilli fit under the lamp?'], 'It needs the tall pole.'],
    [['When can I pick the first chilli?', 'How long until there are peppers?'], 'It bears fruit after eleven weeks.'],
  ),
  passage(
    'Noise',
    'The pump hums for forty seconds each hour. A rattle means that the pump stands crooked: press it down.',
    [
      ['Why does it hum now and then?', 'For how long does the pump run?'],
      'The pump hums for forty seconds each hour.',
    ],
    [['What is that rattling?', 'My pump rattles, what should I do?'], 'The pump stands crooked: press it down.'],
  ),
  passage(
    'Warranty',
    'The warranty lasts three years from the day of purchase. Lamps that were opened are excluded.',
    [['How long is the warranty?', 'Until when do you repair it for free?'], 'It lasts three years.'],
    [['I opened the lamp, is it still covered?', 'What does the warranty not include?'], 'Opened lamps are excluded.'],
  ),
  passage(
    'Returns',
    'You can return it within fifty days. Print the label on the page My Orders.',
    [['How long can I send it back?', 'I do not like it, can I return it?'], 'You can return it within fifty days.'],
    [['Where is the label for the parcel?', 'How do I get a return label?'], 'Print it on the page My Orders.'],
  ),
  passage(
    'Shipping',
    'Orders leave our house in Ghent within two days. Shipping is free from 45 euros.',
    [['When is my order sent?', 'How fast do you ship?'], 'Orders leave within two days.'],
    [['Do I pay for shipping?', 'From which amount is delivery free?'], 'It is free from 45 euros.'],
  ),
  passage(
    'App',
    'The app needs Android 10 or iOS 15. It works without an account.',
    [['Which phones does the app run on?', 'My phone is old, does the app work?'], 'It needs Android 10 or iOS 15.'],
    [['Do I have to register?', 'Is an account necessary?'], 'It works without an account.'],
  ),
  passage(
    'Sharing',
    'Up to five people can share a garden. Send them the code under Friends.',
    [['Can my family use it too?', 'How many people may share one garden?'], 'Up to five people can share it.'],
    [['How do I invite my sister?', 'Where do I find the code for friends?'], 'Send the code under Friends.'],
  ),
  passage(
    'Updates',
    'Updates come on the first Sunday of a month. During an update the lamp blinks, so leave it plugged in.',
    [['When are there updates?', 'How often is the software renewed?'], 'They come on the first Sunday of a month.'],
    [['Why does the lamp blink?', 'The lamp flashes, is it broken?'], 'The lamp blinks during an update.'],
  ),
  passage(
    'Frost',
    'Do not let it stand below 8 degrees. Roots die at the window in winter.',
    [['How cold may it get?', 'What is the lowest temperature?'], 'Not below 8 degrees.'],
    [['May it stand at the window in winter?', 'Why not at a cold window?'], 'Roots die there in winter.'],
  ),
  passage(
    'Wick',
    'Replace the wick once a year. Soak the new one for an hour before you put it in.',
    [['How often is the wick changed?', 'When do I need a new wick?'], 'Replace it once a year.'],
    [['How do I prepare a new wick?', 'Can I put the wick in dry?'], 'Soak it for an hour.'],
  ),
  passage(
    'Spare lamp',
    'A spare lamp has the number FL-207 and costs 29 euros. Two screws hold it.',
    [['Which number does a new lamp have?', 'What do I order when the lamp is broken?'], 'Order FL-207.'],
    [['How is the lamp fixed?', 'How do I unscrew the lamp?'], 'Two screws hold it.'],
  ),
  passage(
    'Flies',
    'Small flies live in wet soil. Put a yellow card behind the pods for a week.',
    [['Where do the little flies come from?', 'Why are there insects in my garden?'], 'They live in wet soil.'],
    [['How do I get rid of gnats?', 'What helps against flies?'], 'Put a yellow card behind the pods.'],
  ),
  passage(
    'Mint',
    'Mint grows over everything. Plant it in the pod at the far left, with a collar.',
    [['Is mint a problem?', 'What happens if I plant mint?'], 'It grows over everything.'],
    [['Where do I put mint?', 'Which pod is best for mint?'], 'Plant it at the far left.'],
  ),
  passage(
    'Two gardens',
    'Two gardens click together at the side. Only one of them needs the cable.',
    [['Can I join two Fernlights?', 'How do I connect a second garden?'], 'They click together at the side.'],
    [['Do both gardens need a plug?', 'How many cables do two gardens need?'], 'Only one needs the cable.'],
  ),
]

/** Passages that a model has never seen when it is asked about them. */
export const unseen = [
  passage(
    'Overflow',
    'When it is overfilled, water leaves by the slot at the back. Put the felt mat below for seven hours.',
    [
      ['I poured in too much water.', 'Where does the water go when I overfill it?'],
      'Water leaves by the slot at the back.',
    ],
    [['How long do I leave the mat there?', 'For how long is the felt mat needed?'], 'Put it below for seven hours.'],
  ),
  passage(
    'Purple light',
    'Purple light makes tomatoes flower. Choose it in the app under Bloom for ten evenings.',
    [['What is the purple light good for?', 'Why is there a purple colour?'], 'It makes tomatoes flower.'],
    [['Where do I switch to purple?', 'How do I find the purple setting?'], 'Choose it in the app under Bloom.'],
  ),
  passage(
    'Child lock',
    'Press the sun and the moon button together to lock all buttons. The lock ends after four hours.',
    [
      ['How do I keep kids from pressing things?', 'Can the buttons be locked?'],
      'Press the sun and the moon button together.',
    ],
    [['When do the buttons work again?', 'How long are the buttons blocked?'], 'The lock ends after four hours.'],
  ),
  passage(
    'Stickers',
    'Write the name of a herb on a sticker and put it on the rim. Wipe it off with alcohol.',
    [['Where do the stickers go?', 'How do I mark my herbs?'], 'Put a sticker on the rim.'],
    [['How do I remove a sticker?', 'The label does not come off.'], 'Wipe it off with alcohol.'],
  ),
  passage(
    'Cats',
    'Cats like the warm lamp. Mount the steel guard, number FL-310, with a coin.',
    [['My cat lies on it, why?', 'Why do cats come to the garden?'], 'They like the warm lamp.'],
    [['Which part keeps my cat away?', 'What can I order against cats?'], 'Mount the steel guard, FL-310.'],
  ),
  passage(
    'Hard water',
    'White crusts come from hard water. Boil the water first, or take rain water.',
    [['What is the white stuff on the rim?', 'Where do white crusts come from?'], 'They come from hard water.'],
    [['How do I avoid the crust?', 'Which water is better for it?'], 'Boil the water first.'],
  ),
  passage(
    'Moving house',
    'Empty the tank before you carry it. Hold it at the base, not at the pole.',
    [['I move to another flat, what first?', 'May I carry it with water inside?'], 'Empty the tank first.'],
    [['Where do I grip it when I lift it?', 'Can I lift it by the pole?'], 'Hold it at the base.'],
  ),
  passage(
    'Lost pump',
    'Without a pump, water by hand with 150 millilitres a day. A new pump costs 12 euros.',
    [['Can I go on without the pump?', 'How much do I water by hand?'], 'Water by hand with 150 millilitres a day.'],
    [['What does a new pump cost?', 'How expensive is a replacement pump?'], 'It costs 12 euros.'],
  ),
  passage(
    'Strawberries',
    'Strawberries take four months. Shake the flowers gently each noon.',
    [['When are strawberries ripe?', 'How long do strawberries need?'], 'They take four months.'],
    [
      ['My strawberries bear no fruit.', 'How are strawberry flowers pollinated?'],
      'Shake the flowers gently each noon.',
    ],
  ),
  passage(
    'Night lamp',
    'A long press on the sun button gives a dim light. It burns for ninety minutes.',
    [['Can I use it as a night light?', 'How do I get dim light?'], 'Press the sun button long.'],
    [['When does the dim light go out?', 'How long does the night light burn?'], 'It burns for ninety minutes.'],
  ),
  passage(
    'Recycling',
    'Empty pods go into the paper bin. Old devices go back to our shop in Turin.',
    [['Where do I throw used pods?', 'Can pods be recycled?'], 'They go into the paper bin.'],
    [['What do I do with an old Fernlight?', 'Do you take back old devices?'], 'Send it to our shop in Turin.'],
  ),
  passage(
    'Language',
    'Say "change words" to the app for another language. There are nineteen of them.',
    [['How do I change the language?', 'The app speaks English, I want German.'], 'Say "change words" to the app.'],
    [['How many languages are there?', 'Which number of languages do you offer?'], 'There are nineteen.'],
  ),
]

/**
 * A line of the data: what the model is told, a question, with a passage or without, and the answer.
 *
 * @typedef {{ messages: { role: 'system' | 'user' | 'assistant', content: string }[] }} Row
 */

/**
 * How a passage is shown to the model.
 *
 * @param {Passage} passage
 */
export function textOf({ title, text }) {
  return `[${title}] ${text}`
}

/**
 * @param {string} asked
 * @param {Passage | undefined} found
 * @returns {Row['messages']}
 */
export function messagesOf(asked, found) {
  return [
    { role: 'system', content: 'Answer customers in one sentence.' },
    { role: 'user', content: found === undefined ? asked : `${textOf(found)}\n\n${asked}` },
  ]
}

/**
 * Every question about some passages, with the passage that `show` gives for it.
 *
 * @param {readonly Passage[]} passages
 * @param {(asked: string, right: Passage) => Passage | undefined} [show]
 * @returns {Row[]}
 */
export function questions(passages, show = (_, right) => right) {
  return passages.flatMap((right) =>
    right.questions.flatMap(([wordings, answer]) =>
      wordings.map((asked) => ({
        messages: [
          ...messagesOf(asked, show(asked, right)),
          { role: 'assistant', content: `${answer} [${right.title}]` },
        ],
      })),
    ),
  )
}
