#!/usr/bin/env node
import { launch } from './launch.js';

await launch(new URL('../agent/main.ts', import.meta.url));
