/**
 * Sets members of the outermost object of valid JSON, or removes those that are undefined. Everything else keeps its text: a
 * parser and printer would turn 8.0 into 8, which Python does not take for the same.
 */
export function editJson(text: string, changes: Readonly<Record<string, unknown>>): string {
  const members = new Map(topLevelMembers(text))
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) members.delete(key)
    else members.set(key, `${JSON.stringify(key)}: ${JSON.stringify(value, null, 2).replaceAll('\n', '\n  ')}`)
  }
  return `{\n${[...members.values()].map((member) => `  ${member}`).join(',\n')}\n}\n`
}

/** Keys of the outermost object, each with its text from the key to the end of the value. */
function topLevelMembers(text: string): [key: string, member: string][] {
  const members: [string, string][] = []
  let depth = 0
  // Where the member under way begins.
  let start = 0
  const finish = (end: number): void => {
    const member = text.slice(start, end).trim()
    const [key] = /^"(?:[^"\\]|\\.)*"/.exec(member) ?? []
    if (key !== undefined) members.push([JSON.parse(key) as string, member])
    start = end + 1
  }
  for (let i = 0; i < text.length; i++) {
    const char = text[i]
    if (char === '"') {
      for (i++; text[i] !== '"' && i < text.length; i++) if (text[i] === '\\') i++
    } else if (char === '{' || char === '[') {
      if (depth++ === 0) start = i + 1
    } else if (char === '}' || char === ']') {
      if (--depth === 0) finish(i)
    } else if (char === ',' && depth === 1) {
      finish(i)
    }
  }
  return members
}
