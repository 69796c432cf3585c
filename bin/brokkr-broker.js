#!/usr/bin/env node
import { launch } from './launch.js';

await launch(new URL('../broker/main', import.meta.url));
