import * as Counterfoil from "../sdk/index.js";
startShop(Counterfoil);
