/** A function call that the assistant made. */
export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** Arguments by name, or the text of arguments that are not a JSON object. */
  readonly arguments: Readonly<Record<string, unknown>> | string;
}

/** A message of a conversation, the same for all APIs. */
export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant' | 'tool';
  readonly content: string;
  /** The assistant's reasoning before its answer. */
  readonly reasoning?: string;
  /** Calls that the assistant made in this message. */
  readonly toolCalls?: readonly ToolCall[];
  /** ID of the tool call that this tool message answers. */
  readonly toolCallId?: string;
}

/** A function that the model may call. `parameters` is a JSON Schema. */
export interface FunctionTool {
  readonly name: string;
  readonly description?: string | null | undefined;
  readonly parameters?: Readonly<Record<string, unknown>> | null | undefined;
}
