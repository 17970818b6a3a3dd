/**
 * A type of the contract as the code that makes it must write it: with every field, also the optional ones, `undefined` where there is
 * none. A field that is added to the schema alone then does not compile where it is made, nor one that is made and not in the schema.
 */
export type Filled<T> = T extends unknown ? { [K in keyof Required<T>]: T[K] } : never;
