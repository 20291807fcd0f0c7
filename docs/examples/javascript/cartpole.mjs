// CartPole as Gymnasium has it (CartPole-v1): the numbers of Barto, Sutton and Anderson (1983), Euler steps of 20 ms.

export const spec = {
  observation: { dtype: "float32", shape: [4] },
  action: { kind: "discrete", dtype: "int32", shape: [], sizes: [2] },
  metrics: [{ name: "steepest_degrees", fold: "max" }],
};

const GRAVITY = 9.8, CART_KG = 1.0, POLE_KG = 0.1, HALF_POLE_M = 0.5, FORCE_N = 10.0, STEP_S = 0.02;
const TOTAL_KG = CART_KG + POLE_KG, POLE_KG_M = POLE_KG * HALF_POLE_M;
const FARTHEST_M = 2.4, STEEPEST_DEGREES = 12, LONGEST_STEPS = 500;

export class Environment {
  /** Begin an episode and return its first observation; `random` makes numbers from 0 to 1. */
  reset(random) {
    this.state = Array.from({ length: 4 }, () => random() * 0.1 - 0.05);
    this.steps = 0;
    return this.state;
  }

  /** Take an action. The observation of a last step is the episode's own: the actor resets. */
  step(action) {
    const [x, velocity, angle, spin] = this.state;
    const sin = Math.sin(angle), cos = Math.cos(angle);
    const push = ((action === 1 ? FORCE_N : -FORCE_N) + POLE_KG_M * spin * spin * sin) / TOTAL_KG;
    const spinning = (GRAVITY * sin - cos * push) / (HALF_POLE_M * (4 / 3 - (POLE_KG * cos * cos) / TOTAL_KG));
    const rolling = push - (POLE_KG_M * spinning * cos) / TOTAL_KG;
    this.state = [x + STEP_S * velocity, velocity + STEP_S * rolling, angle + STEP_S * spin, spin + STEP_S * spinning];
    this.steps += 1;
    const degrees = (Math.abs(this.state[2]) * 180) / Math.PI;
    const terminated = Math.abs(this.state[0]) > FARTHEST_M || degrees > STEEPEST_DEGREES;
    const truncated = this.steps >= LONGEST_STEPS;
    return { observation: this.state, reward: 1, terminated, truncated, metrics: [degrees] };
  }
}
