startShop(Counterfoil);
